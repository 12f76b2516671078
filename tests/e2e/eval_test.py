"""tq eval, recommend, distortion and dump (eval_test.py TQ BIN_DIR) with the real model, on a text made here."""
import json
import os
import re
import struct
import sys
import tempfile

from support.tools import MODEL, check, need, run

WORDS = "the harbour keeper wrote of wind and sea and the ships that went by every evening in his old log book".split()


def text():
    """About 700 tokens that are not all alike."""
    return " ".join(WORDS[(i * i + i // 7) % len(WORDS)] + (f" {i}." if i % 11 == 0 else "") for i in range(420))


def evaluate(tq, file, *options):
    status, out, err = run([tq, "eval", "-m", MODEL, "-f", file, "-c", 128, "-t", 2, "--json", *options])
    check(status == 0, f"tq eval {' '.join(map(str, options))} ends well", err)
    return json.loads(out)


def check_eval(tq, file, folder):
    state = os.path.join(folder, "state.jsonl")
    caches = "f16,q8_0,q8_0/q4_0,k8v8,k4ctv4t,k2v2"
    options = ["--chunks", 2, "--cache", caches, "--state", state, "--greedy", 1, "--recall", 1]
    report = evaluate(tq, file, *options)
    found = {cache["cache"]: cache for cache in report["caches"]}
    check(all(re.fullmatch("[a-z][a-z0-9_]*", key) for key in keys_of(report)), "jq can name every key", report)
    check(list(found) == caches.split(","), "the report has the caches in order", report)
    check(report["n_chunks"] == 2 and found["k8v8"]["n_tokens"] == 2 * 63, "tokens of the second halves are counted", report)
    kld = {name: cache["mean_kld"]["value"] for name, cache in found.items()}
    check(kld["f16"] < 1e-6, "f16 does not differ from itself", kld)
    check(0 < kld["k8v8"] < kld["k4ctv4t"] < kld["k2v2"], "fewer bits diverge more", kld)
    check(0 < kld["q8_0"] < kld["q8_0/q4_0"], "llama.cpp's types too", kld)
    check(found["f16"]["greedy_tokens"]["value"] == 64, "f16 continues as f16", found)

    lines = open(state, encoding="utf-8").read()
    with open(state, "a", encoding="utf-8") as file_:
        file_.write('{"chunk":')  # as if the call had been cut off
    again = evaluate(tq, file, *options)
    check(again["caches"] == report["caches"], "a second call takes everything from the state file", report, again)
    check(open(state, encoding="utf-8").read() == lines, "it adds nothing, and drops the line that was cut off")
    status, _, err = run([tq, "eval", "-m", MODEL, "-f", file, "-c", 64, "--state", state])
    check(status == 1 and state in err, "a state file of another context is refused", err)


def check_exact_rows(tq, file):
    report = evaluate(tq, file, "--chunks", 2, "--cache", "k2v2,k2v2+sink4+recent28")
    plain, exact = report["caches"]
    words = [cache["description"] for cache in report["caches"]]
    check(words == ["k2v2", "k2v2, sinks=4 window=28"], "presets are described in words", words)
    # 32 of the 256 cells that llama.cpp makes of 128 are in f16; a reserve begins beyond 512
    check(abs(exact["bits_per_value"] - plain["bits_per_value"] - 16 * 32 / 256) < 1e-9, "exact rows are counted", report)
    kld = plain["mean_kld"]["value"], exact["mean_kld"]["value"]
    check(0 < kld[1] < kld[0] / 2, "with exact rows a cache diverges less", kld)
    other = evaluate(tq, file, "--chunks", 2, "--cache", "k2v2+sink4+recent28", "--batch", 10)["caches"][0]["mean_kld"]["value"]
    check(abs(other - kld[1]) < 0.05 * kld[1], "the size of batches does not matter", kld, other)


def keys_of(value):
    if isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from keys_of(each)
    elif isinstance(value, list):
        for each in value:
            yield from keys_of(each)


def check_info(tq, bin_dir):
    """tq info says what llama.cpp allocates."""
    for cache, options in (("q8_0", ["--device", "none", "-ctk", "q8_0", "-ctv", "q8_0"]), ("fast", ["--device", "TurboQuant", "-ngl", 99])):
        name = {"fast": "k4cv4+sink1+recent15"}.get(cache, cache)
        preset = ["--preset", cache] if cache == "fast" else []
        status, out, err = run([tq, "info", "-m", MODEL, "-c", 1000, "--json", *preset])
        check(status == 0, "tq info ends well", err)
        found = json.loads(out)["model"]
        mib = {cost["type"]: cost["mib"] for cost in found["kv_cache"]}[name]
        command = [os.path.join(bin_dir, "llama-completion"), "-m", MODEL, *options, "-fa", "on", "-c", 1000, "-n", 1, "-t", 2]
        status, _, log = run([*command, "-no-cnv", "-p", "Hello", "-lv", 4], TURBOQUANT_KV="fast")
        said = [float(each) for each in re.findall(r"KV buffer size =\s*([0-9.]+) MiB", log)]
        check(status == 0 and said and abs(said[-1] - mib) < 0.006, f"tq info says {mib} MiB of {cache}, llama.cpp {said}", log)
        check(found["n_cells"] == 1024 and found["fixed_bytes"] == 0, "cells are counted as llama.cpp pads them", found)


def check_refusals(tq, file):
    for arguments, part in (
        (["--cache", "k9v9"], "k9v9"),
        (["--cache", "q8_0,q8_0"], "twice"),
        (["-c", "5"], "--ctx"),
        (["--batch", "1"], "--batch"),
    ):
        status, _, err = run([tq, "eval", "-m", MODEL, "-f", file, *arguments])
        check(status == 2 and part in err, f"{arguments} is wrong usage", err)
    status, _, err = run([tq, "eval", "-m", MODEL, "-f", "/nowhere"])
    check(status == 1 and "/nowhere" in err, "a missing text is named", err)
    status, _, err = run([tq, "eval", "-m", MODEL, "-f", file, "-c", 100000])
    check(status == 1 and "too short" in err, "a text that is too short is named", err)
    status, _, err = run([tq, "eval", "-m", file, "-f", file])
    check(status == 1 and file in err, "a model that is none is named", err)


def check_recommend(tq, file):
    command = [tq, "recommend", "-m", MODEL, "-f", file, "-c", 128, "--chunks", 1, "--budget", 3.3, "-t", 2]
    status, out, err = run([*command, "--json"])
    check(status == 0, "tq recommend ends well", err)
    report = json.loads(out)
    check(all(cache["bits_per_value"] <= 3.3 for cache in report["caches"]), "nothing is beyond the budget", out)
    check(report["recommended"] in [cache["cache"] for cache in report["caches"]], "it chooses what it has measured", out)
    status, out, err = run([*command, "--fast"])
    preset = out.rsplit("TURBOQUANT_KV=", 1)[-1].strip()
    check(status == 0 and f"recommended: {preset}" in out, "it says what to set", out, err)
    status, out, err = run([tq, "info", "--json", "--preset", preset])
    name = json.loads(out)["presets"][0]["name"]
    check(name.startswith("k") and "t" not in name.split("+")[0], "--fast leaves trellis codes out", out, err)


def check_calibration(tq, file, folder):
    calibration = os.path.join(folder, "calibration.gguf")
    command = [tq, "calibrate", "-m", MODEL, "-c", 128, "-n", 512, "-t", 2]
    status, out, err = run([*command, "-f", file, "-o", calibration])
    check(status == 0 and calibration in out, "tq calibrate ends well and names its file", out, err)
    alone = os.path.join(folder, "alone.gguf")
    status, _, err = run([tq, "calibrate", "-m", MODEL, "-c", 128, "-n", 512, "-t", 1, "-f", file, "-o", alone])
    same = open(alone, "rb").read() == open(calibration, "rb").read()
    check(status == 0 and same, "one thread calibrates to the same bits as two", err)
    report = evaluate(tq, file, "--chunks", 2, "--cache", "k3v3,k3v3+cal", "--calibration", calibration)
    plain, calibrated = report["caches"]
    check(plain["bits_per_value"] == calibrated["bits_per_value"], "a calibration takes no bits of the cache", report)
    kld = plain["mean_kld"]["value"], calibrated["mean_kld"]["value"]
    check(0 < kld[1] < kld[0], "a calibrated cache diverges less", kld)
    status, out, err = run([tq, "recommend", "-m", MODEL, "-f", file, "-c", 128, "--chunks", 1, "--budget", 3.3, "--fast", "-t", 2,
                            "--calibration", calibration])
    check(status == 0 and f"TURBOQUANT_CALIBRATION={calibration}" in out, "tq recommend takes it", out, err)

    status, _, err = run([tq, "eval", "-m", MODEL, "-f", file, "--cache", "k4v4+cal"])
    check(status == 2 and "--calibration" in err, "a calibrated preset needs the file", err)
    status, _, err = run([tq, "eval", "-m", MODEL, "-f", file, "-c", 128, "--cache", "k4v4+cal", "--calibration", file])
    check(status == 1 and file in err, "a file that is no calibration is named", err)
    for target in ("/nowhere/calibration.gguf", folder):
        status, _, err = run([*command, "-f", file, "-o", target])
        check(status == 1 and target in err, "where nothing can be written is named", err)
    status, _, err = run([tq, "calibrate", "-m", MODEL, "-f", file, "-o", calibration, "-c", 4096])
    check(status == 1 and file in err, "a text that is too short is named", err)


def check_inspection(tq, file, folder):
    command = ["-m", MODEL, "-f", file, "-n", 64, "-t", 2]
    status, out, err = run([tq, "distortion", *command, "--json", "-p", "k4v4,k4tv4t"])
    check(status == 0, "tq distortion ends well", err)
    layers = json.loads(out)["layers"]
    check(len(layers) == 30, "it has every layer", out)
    for layer in layers:
        plain, trellis = layer["keys"]["codecs"]
        check(plain["snr_db"] < trellis["snr_db"] < trellis["bound_db"], f"layer {layer['layer']}: trellis codes are between", layer)
    status, _, err = run([tq, "dump", *command, "-o", os.path.join(folder, "dump")])
    check(status == 0, "tq dump ends well", err)
    data = open(os.path.join(folder, "dump", "q_l29.npy"), "rb").read()
    header = struct.unpack("<H", data[8:10])[0]
    check(data[:6] == b"\x93NUMPY" and b"(64, 9, 64, )" in data[10 : 10 + header], "queries are there, as NumPy reads them", data[:100])
    check(len(data) == 10 + header + 4 * 64 * 9 * 64, "all of them")


def main():
    tq, bin_dir = sys.argv[1:3]
    need(MODEL, tq, os.path.join(bin_dir, "llama-completion"))
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "text.txt")
        with open(file, "w", encoding="utf-8") as out:
            out.write(text())
        check_info(tq, bin_dir)
        check_eval(tq, file, folder)
        check_refusals(tq, file)
        check_recommend(tq, file)
        check_calibration(tq, file, folder)
        check_exact_rows(tq, file)
        check_inspection(tq, file, folder)


main()
