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
import rounds

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


# What llama.cpp itself has; every other name is a TurboQuant preset.
RIVALS = ("f16", "q8_0", "q4_0")


def model_runs(parts):
    """{(cache, depth): {"pp": {round: tokens/s}, "tg": {...}}}."""
    runs = {}
    for name, part in parts.items():
        if not name.startswith("llama-bench."):
            continue
        _, cache, depth, number = name.split(".")
        at = runs.setdefault((cache, int(depth)), {"pp": {}, "tg": {}})
        for run in part["result"]["runs"]:
            at["pp" if run["n_prompt"] else "tg"][int(number)] = run["avg_ts"]
    return runs


def model_machines(parts):
    """In the order of time: a round's depths one after another, at each depth the caches in turn."""
    names = [name.split(".") + [name] for name in parts if name.startswith("llama-bench.")]
    names.sort(key=lambda n: (int(n[3]), int(n[2]), (*RIVALS, n[1]).index(n[1])))
    return [parts[n[4]]["result"]["machine"] for n in names]


def cache_names(runs):
    """TurboQuant first."""
    names = {cache for cache, _ in runs}
    return sorted(names - set(RIVALS)) + [n for n in RIVALS if n in names]


def low_middle_high(each):
    return each["min"], each["median"], each["max"]


def model_series(runs, test):
    """{cache: {depth: spread of tokens/s}}."""
    series = {}
    for (cache, depth), values in runs.items():
        if values[test]:
            series.setdefault(cache, {})[depth] = rounds.spread([values[test][n] for n in sorted(values[test])])
    return series


def paired_series(runs, test, rival="f16"):
    """{cache: {depth: spread of tokens/s relative to the rival's of the same round}}."""
    series = {}
    for (cache, depth), values in runs.items():
        others = runs.get((rival, depth), {"pp": {}, "tg": {}})[test]
        both = sorted(values[test].keys() & others.keys())
        if both and cache != rival:
            ratio = rounds.ratio([values[test][n] for n in both], [others[n] for n in both])
            series.setdefault(cache, {})[depth] = ratio
    return series


def model_cell(series, cache, depth, digits):
    if depth not in series[cache]:
        return ""
    low, middle, high = low_middle_high(series[cache][depth])
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def model_test_name(parts, test):
    key = "n_prompt" if test == "pp" else "n_gen"
    runs = (run for name, part in parts.items() if name.startswith("llama-bench.") for run in part["result"]["runs"])
    return f"{test}{max(run[key] for run in runs)}"


def model_table(series, title, names, depths, digits):
    rows = ([n if n in RIVALS else f"**{n}**"] + [model_cell(series, n, d, digits) for d in depths] for n in names if n in series)
    yield from table([title] + [f"depth {depth:,}" for depth in depths], rows)
    yield ""


def model_doubts(parts, runs):
    """Sentences on the machine while whole models were measured."""
    summary = rounds.machine_summary(model_machines(parts))
    if others := summary["others_cores"]:
        yield f"Other processes took {others['median']:.2f} of {summary['cores']} cores meanwhile (most: {others['max']:.2f})."
    spreads = {
        f"{cache} {test} at {depth}, of f16's": ratio
        for test in ("pp", "tg")
        for cache, at in paired_series(runs, test).items()
        for depth, ratio in at.items()
    }
    if doubts := rounds.doubts(summary, spreads):
        yield "**The machine was too busy or too uneven to tell:** " + "; ".join(doubts) + "."


def model_section(parts, facts):
    runs = model_runs(parts)
    depths, names = sorted({depth for _, depth in runs}), cache_names(runs)
    n_rounds = max(len(values["tg"]) for values in runs.values())
    yield "## Whole models"
    yield ""
    yield (
        f"llama-bench of llama.cpp {facts.get('llama_cpp', '')}, unmodified, {facts.get('model', '')}, "
        f"{facts.get('threads', '?')} threads, {n_rounds} rounds in which the caches take turns. *of f16's*: tokens/s relative "
        "to f16's of the same round, median (lowest–highest) of the rounds. "
        "Prefill of that many tokens and decoding behind a context of the given depth. Speed does not depend on "
        "what the tokens are; where depth and new tokens together exceed the context that the model was trained for (8192 "
        "with the default model), its text would be worthless, its speed is not.\n"
    )
    yield " ".join(model_doubts(parts, runs)) + "\n"
    yield "![tokens/s over depth](benchmarks.svg)\n"
    for test in ("pp", "tg"):
        name = model_test_name(parts, test)
        yield from model_table(paired_series(runs, test), f"{name}, of f16's", names, depths, 2)
        yield from model_table(model_series(runs, test), f"{name}, tokens/s", names, depths, 1)
    for name in names:
        command = next((p["command"] for n, p in parts.items() if n.startswith(f"llama-bench.{name}.{depths[-1]}.")), None)
        if command:
            yield f"- `{command}`"
    yield ""


def write_model_plot(path, parts):
    runs = model_runs(parts)
    panels = []
    for test, title in (("pp", "Prefill"), ("tg", "Decoding")):
        series = {
            cache: {depth: low_middle_high(each) for depth, each in at.items()}
            for cache, at in model_series(runs, test).items()
        }
        panels.append((f"{title}, tokens/s ({model_test_name(parts, test)})", series))
    plot.lines(path, panels, cache_names(runs), "tokens in the context")


# ---- the document


def hardware(parts, facts):
    first = next((p["result"] for p in parts.values() if "machine" in p["result"] and "cases" in p["result"]), {})
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
    lines = [json.dumps({"name": name, **part}, ensure_ascii=False) for name, part in parts.items()]
    return '{"facts": ' + json.dumps(facts) + ',\n"parts": [\n' + ",\n".join(lines) + "\n]}\n"


def main():
    results, out, root = sys.argv[1:]
    facts, parts = read_facts(results), read_parts(results, root)
    if not parts:
        sys.exit(f"bench_report.py: nothing has been measured: {results} has no results")
    os.makedirs(out, exist_ok=True)
    write(os.path.join(out, "benchmarks.md"), "\n".join(document(parts, facts)))
    write(os.path.join(out, "benchmarks.json"), raw_json(parts, facts))
    if any(name.startswith("llama-bench.") for name in parts):
        write_model_plot(os.path.join(out, "benchmarks.svg"), parts)


if __name__ == "__main__":
    main()
