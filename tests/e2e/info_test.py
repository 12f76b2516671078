#!/usr/bin/env python3
"""tq info says what llama.cpp allocates, for architectures of every kind of cache (info_test.py TQ BIN_DIR).

llama.cpp's own test writes small models with random weights; their contexts are made, and what the log says is added up.
"""
import glob
import json
import os
import re
import sys
import tempfile

from support.tools import check, need, run

# Whole contexts, sliding windows, recurrent states, hybrids, latent attention, indexers, several caches side by side.
ARCHITECTURES = ["llama", "gemma3", "gpt-oss", "mamba2", "falcon-h1", "lfm2", "deepseek2", "deepseek32", "deepseek4",
                 "minimax-m3", "qwen4exp", "glm5-next"]
BUFFER = re.compile(r"(?:KV|RS|state) buffer size =\s*([0-9.]+) MiB")
N_CTX = 4096


def info(tq, model, preset):
    status, out, err = run([tq, "info", "-m", model, "-c", N_CTX, "--json", "--preset", preset])
    check(status == 0, f"tq info reads {os.path.basename(model)}", err)
    return json.loads(out)["model"]


def buffers(bin_dir, model, options, **environment):
    """MiB of each buffer of the context that llama.cpp makes; what it does afterwards is not looked at."""
    command = [os.path.join(bin_dir, "llama-completion"), "-m", model, "-c", N_CTX, "-fa", "on", "-fit", "off", "-t", 2]
    _, _, log = run([*command, *options, "--no-warmup", "-no-cnv", "-n", 1, "-p", "1", "-lv", 4], **environment)
    return [float(mib) for mib in BUFFER.findall(log)], log


def check_architecture(tq, bin_dir, model):
    report = info(tq, model, "fast")
    mib = {cost["type"]: cost["mib"] for cost in report["kv_cache"]}
    cases = (("f16", ["--device", "none"]), ("k4cv4+sink1+recent15", ["--device", "TurboQuant", "-ngl", 99]))
    for cache, options in cases:
        said, log = buffers(bin_dir, model, options, TURBOQUANT_KV="fast")
        close = abs(sum(said) - mib[cache]) <= 0.005 * len(said) + 1e-6
        check(said and close, f"{report['architecture']} {cache}: tq info {mib[cache]:.3f} MiB, llama.cpp {said}", log)


def check_grok(tq, model):
    """llama.cpp forces flash attention off: no preset can be used, and that is said."""
    report = info(tq, model, "fast")
    types = [cost["type"] for cost in report["kv_cache"]]
    check(types == ["f16"], "a model without flash attention has no packed cache", types)
    check(any("needs flash attention" in note for note in report["notes"]), "it says why", report["notes"])


def main():
    tq, bin_dir = sys.argv[1:3]
    archs = os.path.join(bin_dir, "test-llama-archs")
    need(tq, archs, os.path.join(bin_dir, "llama-completion"))
    with tempfile.TemporaryDirectory() as folder:
        for name in [*ARCHITECTURES, "grok"]:
            run([archs, "-a", name, "-o", folder + "/"])
            models = glob.glob(os.path.join(folder, "*.gguf"))
            check(models, f"llama.cpp's test writes a model of {name}")
            for model in models:
                if name == "grok":
                    check_grok(tq, model)
                else:
                    check_architecture(tq, bin_dir, model)
                os.remove(model)


main()
