#!/usr/bin/env python3
"""Writes benchmarks.md, .svg and .json from what scripts/bench has measured.

bench_report.py RESULTS OUT ROOT: RESULTS has <part>.json, .cmd and .date, and facts; parts that are missing are left out.
"""
import glob
import json
import os
import re
import statistics
import sys

import plot

SECTIONS = [
    (
        "attention",
        "Decoding attention, by shape and depth",
        "One new token; every cache is read from memory. Shapes are query heads / KV heads / head size.",
    ),
    ("presets", "Presets", "The same attention with other widths of K and V."),
    ("threads", "Threads", ""),
    ("batch", "Small batches", "Several new tokens at once, as in speculative decoding: µs for all of them."),
    ("prefill", "Prefill", "512 new tokens behind a filled cache: computing is the limit, not reading."),
    ("linear", "Over the depth", ""),
    (
        "avx2",
        "AVX2 only",
        "Both sides without AVX-512: `--isa avx2` for TurboQuant, a ggml built with `GGML_AVX512=OFF`.",
    ),
    (
        "encode",
        "Storing new rows",
        "Encoding new rows of K and V beside ggml's SET_ROWS. TurboQuant rotates and searches scales, the rivals round. "
        "GB/s counts the rows as f16; a row is one token's K and V of one layer.",
    ),
]
METHOD = """\
`tq bench` times every contestant in one process, round by round in rotating order, each with the same number of threads,
on its own standing threads. Each has as many independent caches ("layers") as it takes to exceed the last-level cache
three times, and reads them in turn: a small cache that is timed repeatedly would be read from the CPU's caches, which it
is not in a model. From 32 new tokens on it is two layers, as computing is the limit. *of read* is against the rate at which
the same threads read a buffer of at least 512 MiB, measured in the same rounds; *GB/s* counts the bytes of the cache as
it is stored. *vs* is how many times as long the rival takes: the median of the rounds' own ratios. *distance* is the
Euclidean distance of the output from that of ggml's f16 attention, relative to it, on Gaussian rows.

Rotating queries and outputs is part of TurboQuant's time. llama.cpp rotates for its quantized caches, too, in separate
operators that are not part of the rivals' time here; it is in the tokens/s of whole models above."""


# ---- reading


def read_facts(folder):
    path = os.path.join(folder, "facts")
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as file:
        return dict(row.rstrip("\n").split("=", 1) for row in file if "=" in row)


def without_paths(value, root):
    """Files are named from the repository's root; where that is on this machine is nobody's business."""
    if isinstance(value, str):
        return re.sub(r"/[^\s=:]*?/(?=build/)", "", value.replace(root + "/", ""))
    if isinstance(value, list):
        return [without_paths(each, root) for each in value]
    if isinstance(value, dict):
        return {key: without_paths(each, root) for key, each in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value


def read_text(path):
    if not os.path.exists(path):
        return ""
    with open(path, encoding="utf-8") as file:
        return file.read().strip()


def read_parts(folder, root):
    """{name: {command, date, result}}."""
    parts = {}
    for path in sorted(glob.glob(os.path.join(folder, "*.json"))):
        name = os.path.basename(path)[: -len(".json")]
        if name == "benchmarks":
            continue
        with open(path, encoding="utf-8") as file:
            result = without_paths(json.load(file), root)
        stem = path[: -len(".json")]
        command = without_paths(read_text(stem + ".cmd"), root)
        parts[name] = {"command": command, "date": read_text(stem + ".date"), "result": result}
    return parts


# ---- tables


def table(head, rows, left=1):
    yield "| " + " | ".join(head) + " |"
    yield "|" + "|".join("---" if i < left else "---:" for i in range(len(head))) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def microseconds(us):
    return f"{us:,.1f}" if us < 1000 else f"{us:,.0f}"


def label(result):
    return f"**{result['name']}**" if result["system"] == "turboquant" else result["name"]


def spread(us):
    return f"{microseconds(us['p10'])}–{microseconds(us['p90'])}"


def case_rows(case, rivals, encode):
    where = f"{case['shape']}, {case['depth']:,}, {case['batch']}, {case['threads']}"
    for result in case["results"]:
        row = [where, label(result), result["isa"] or "", f"{result['bits_per_value']:.2f}"]
        row += [microseconds(result["us"]["median"]), spread(result["us"]), f"{result['gbps']:.2f}"]
        row.append(f"{result['us_per_row']:.2f}" if encode else f"{result.get('percent_of_read', 0):.0f} %")
        ratios = result["times_faster_than"]
        row += [f"{ratios[rival]['median']:.3g}x" if rival in ratios else "" for rival in rivals]
        if not encode:
            row.append(f"{result['distance_to_f16']:.3f}" if "distance_to_f16" in result else "")
        yield row
        where = ""


def case_table(report):
    encode = report["bench"] == "encode"
    rivals = list(dict.fromkeys(r["name"] for case in report["cases"] for r in case["results"] if r["system"] == "ggml"))
    head = ["shape, depth, batch, threads", "cache", "ISA", "bits", "µs", "p10–p90", "GB/s"]
    head += ["µs/row"] if encode else ["of read"]
    head += [f"vs {rival}" for rival in rivals] + ([] if encode else ["distance"])
    return table(head, (row for case in report["cases"] for row in case_rows(case, rivals, encode)), 3)


def fit_table(fits):
    rows = (
        [f"**{f['name']}**" if f["isa"] else f["name"], f"{f['intercept_us']:.1f}", f"{f['us_per_1024_cells']:.2f}"]
        + [f"{f['r2']:.5f}", f"{100 * f['worst_relative_deviation']:.1f} %"]
        for f in fits
    )
    return table(["cache", "µs at depth 0", "µs per 1024 cells", "R²", "worst deviation"], rows)


# ---- what a section shows, in numbers of its own


def ratio_range(report, rival):
    ratios = [
        result["times_faster_than"][rival]["median"]
        for case in report["cases"]
        for result in case["results"]
        if result["system"] == "turboquant" and rival in result["times_faster_than"]
    ]
    return (min(ratios), max(ratios)) if ratios else None


def shown(report):
    said = []
    for rival in ("f16", "q8_0", "q4_0"):
        if span := ratio_range(report, rival):
            said.append(f"{span[0]:.3g} to {span[1]:.3g} times {rival}'s")
    if not said:
        return "ggml was not there; TurboQuant was measured alone."
    kind = "is" if report["bench"] == "attention" else "here is"
    return f"TurboQuant's speed {kind} " + ", ".join(said) + "."


def read_rates(report):
    rates = sorted({(c["threads"], c["read_gbps"]["median"], c["read_gbps"]["max"]) for c in report["cases"] if c["read_gbps"]})
    spans = {}
    for threads, median, best in rates:
        low, high, top = spans.get(threads, (median, median, best))
        spans[threads] = (min(low, median), max(high, median), max(top, best))
    said = [f"{t} threads {low:.1f}–{high:.1f} (best {top:.1f})" for t, (low, high, top) in spans.items()]
    return "Memory read, GB/s: " + ", ".join(said) + "." if said else ""


def section(name, title, text, part):
    report = part["result"]
    yield f"## {title}"
    yield ""
    yield from (paragraph + "\n" for paragraph in (text, shown(report), read_rates(report)) if paragraph)
    if name == "avx2" and report["ggml"]:
        yield f"This ggml's instruction sets: {' '.join(report['ggml']['features'])}.\n"
    if name == "linear" and report["fits"]:
        yield "Least squares of the medians over the depth:\n"
        yield from fit_table(report["fits"])
        yield ""
    yield from case_table(report)
    yield ""
    yield f"`{part['command']}` ({part['date']})"
    yield ""


# ---- whole models


def model_runs(parts):
    """{(type, depth): {"pp": [tokens/s], "tg": [...]}} in the order of measuring."""
    runs = {}
    for name, part in parts.items():
        if not name.startswith("llama-bench."):
            continue
        _, cache, depth, _ = name.split(".")
        at = runs.setdefault((cache, int(depth)), {"pp": [], "tg": []})
        for run in part["result"]:
            at["pp" if run["n_prompt"] else "tg"].append(run["avg_ts"])
    return runs


def cache_names(runs):
    """TurboQuant first."""
    names = {cache for cache, _ in runs}
    return sorted(n for n in names if n.startswith("k")) + [n for n in ("f16", "q8_0", "q4_0") if n in names]


def low_middle_high(values):
    return min(values), statistics.median(values), max(values)


def model_series(runs, test):
    series = {}
    for (cache, depth), values in runs.items():
        if values[test]:
            series.setdefault(cache, {})[depth] = low_middle_high(values[test])
    return series


def model_cell(series, cache, depth):
    low, middle, high = series[cache].get(depth, (0, 0, 0))
    return f"{middle:.1f} ({low:.1f}–{high:.1f})" if high else ""


def model_test_name(parts, test):
    key = "n_prompt" if test == "pp" else "n_gen"
    runs = (run for name, part in parts.items() if name.startswith("llama-bench.") for run in part["result"])
    return f"{test}{max(run[key] for run in runs)}"


def model_section(parts, facts):
    runs = model_runs(parts)
    depths, names = sorted({depth for _, depth in runs}), cache_names(runs)
    rounds = max(len(values["tg"]) for values in runs.values())
    yield "## Whole models"
    yield ""
    yield (
        f"llama-bench of llama.cpp {facts.get('llama_cpp', '')}, unmodified, {facts.get('model', '')}, "
        f"{facts.get('threads', '?')} threads: tokens/s, median of {rounds} {'run' if rounds == 1 else 'runs'} of each (lowest–highest). "
        "Prefill of that many tokens and decoding behind a context of the given depth. Speed does not depend on "
        "what the tokens are; where depth and new tokens together exceed the context that the model was trained for (8192 "
        "with the default model), its text would be worthless, its speed is not.\n"
    )
    yield "![tokens/s over depth](benchmarks.svg)\n"
    for test in ("pp", "tg"):
        series = model_series(runs, test)
        head = [model_test_name(parts, test)] + [f"depth {depth:,}" for depth in depths]
        rows = ([f"**{n}**" if n.startswith("k") else n] + [model_cell(series, n, d) for d in depths] for n in names if n in series)
        yield from table(head, rows)
        yield ""
    for name in names:
        command = next((p["command"] for n, p in parts.items() if n.startswith(f"llama-bench.{name}.{depths[-1]}.")), None)
        if command:
            yield f"- `{command}`"
    yield ""


def model_svg(parts):
    runs = model_runs(parts)
    panels = [
        (f"{title}, tokens/s ({model_test_name(parts, test)})", model_series(runs, test))
        for test, title in (("pp", "Prefill"), ("tg", "Decoding"))
    ]
    return plot.chart(panels, cache_names(runs), "tokens in the context")


# ---- the document


def hardware(parts, facts):
    first = next((p["result"] for p in parts.values() if isinstance(p["result"], dict)), {})
    machine, ggml = first.get("machine", {}), first.get("ggml") or {}
    dates = sorted({part["date"] for part in parts.values() if part["date"]})
    virtual = f", virtual machine ({facts['hypervisor']})" if "hypervisor" in facts else ""
    rows = [
        ("processor", f"{machine.get('cpu') or facts.get('cpu', '')}, {machine.get('cores', '?')} cores used{virtual}"),
        ("last-level cache", facts.get("l3", "")),
        ("system", facts.get("kernel", "")),
        ("compiler", facts.get("compiler", "")),
        ("turboquant.cpp", f"{first.get('version', '')} ({facts.get('commit', '')})"),
        ("llama.cpp", f"{facts.get('llama_cpp', '')}, ggml {ggml.get('version', '')}: {' '.join(ggml.get('features', []))}"),
        ("measured", " to ".join(dict.fromkeys([dates[0], dates[-1]])) if dates else ""),
    ]
    return table(["", ""], (list(row) for row in rows if row[1]), 2)


def document(parts, facts):
    yield "# Benchmarks"
    yield ""
    yield "Written by `scripts/bench`, which measures all of this anew. The raw results are in [benchmarks.json](benchmarks.json)."
    yield ""
    yield from hardware(parts, facts)
    yield ""
    if facts.get("note"):
        yield facts["note"] + "\n"
    if any(name.startswith("llama-bench.") for name in parts):
        yield from model_section(parts, facts)
    yield "## How attention and encoding are measured"
    yield ""
    yield METHOD
    yield ""
    for name, title, text in SECTIONS:
        if name in parts:
            yield from section(name, title, text, parts[name])


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def raw_json(parts, facts):
    """One part a line: whole numbers of samples would make a file of a hundred thousand lines."""
    lines = [f"{json.dumps(name)}: {json.dumps(part, ensure_ascii=False)}" for name, part in parts.items()]
    return '{"facts": ' + json.dumps(facts) + ',\n"parts": {\n' + ",\n".join(lines) + "\n}}\n"


def main():
    results, out, root = sys.argv[1:]
    facts, parts = read_facts(results), read_parts(results, root)
    if not parts:
        sys.exit(f"bench_report.py: nothing has been measured: {results} has no results")
    os.makedirs(out, exist_ok=True)
    write(os.path.join(out, "benchmarks.md"), "\n".join(document(parts, facts)))
    write(os.path.join(out, "benchmarks.json"), raw_json(parts, facts))
    if any(name.startswith("llama-bench.") for name in parts):
        write(os.path.join(out, "benchmarks.svg"), model_svg(parts))


if __name__ == "__main__":
    main()
