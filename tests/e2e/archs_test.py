#!/usr/bin/env python3
"""llama.cpp's test-llama-archs on the TurboQuant device (archs_test.py PROGRAM PRELOAD).

The program makes a small random model of every architecture and computes 128 tokens on the CPU and on the device: logits
must agree, a saved and loaded model must give the same bits, and chunks of a batch what the whole batch gives. Whatever
it finds right with the CPU's own f16 cache must be right with k8cv8.
"""
import os
import sys

from support.archs import run_archs
from support.tools import check, need, run

PRESET = "k8cv8"
SEED = 1
# The program's own limit for the mean squared error over the mean square of the CPU's logits; 8 bits stay far below it.
MAX_NMSE = 1e-4
# llama.cpp switches flash attention off for these, whatever the user asks for, so that the device has to refuse.
REFUSED = {"grok": "Grok"}
# Compressed (MLA) caches are computed by ggml's own float attention, minimax-01 has linear attention beside ours: sums run
# in another order for other batches, with an f16 cache as well. Everywhere else chunks and the whole agree to the bit.
FLOAT_SUMS = {
    "bailingmoe3", "deepseek2", "deepseek32", "dots3note", "glm-dsa", "glm5-next", "hy_v4", "kimi-k3", "kimi-linear",
    "minimax-01", "minimax-m3", "mistral4", "qwen4exp",
}
# How far those may lie beyond f16's own difference: the scatter of one sum in another order.
MAX_CHUNKS = 4


def environment(preload):
    """The libraries of the program's own folder serve the preloaded one, too."""
    libraries = os.path.dirname(os.path.abspath(sys.argv[1]))
    preloaded = ":".join(filter(None, [os.environ.get("TQ_TEST_SANITIZER", ""), preload]))
    return {"LD_PRELOAD": preloaded, "LD_LIBRARY_PATH": libraries, "TURBOQUANT_KV": PRESET}


def faults_of(row, cpu):
    """What is wrong with a model's results where the CPU's are right."""
    if not row.ended:
        return ["ended the program"]
    faults = []
    if cpu.nmse_status == "OK" and (row.nmse_status != "OK" or row.nmse is None or not row.nmse <= MAX_NMSE):
        faults.append(f"NMSE to the CPU {row.nmse} ({row.nmse_status})")
    if cpu.roundtrip == "OK" and row.roundtrip != "OK":
        faults.append("a saved and loaded model gives other logits")
    max_chunks = MAX_CHUNKS * cpu.chunks if row.arch in FLOAT_SUMS and cpu.chunks else 0
    if cpu.chunks_status == "OK" and (row.chunks_status != "OK" or row.chunks is None or not row.chunks <= max_chunks):
        faults.append(f"chunks of a batch differ from the whole: NMSE {row.chunks} ({row.chunks_status})")
    return faults


def every_architecture(program, variables):
    cpu, _ = run_archs(program, "CPU", SEED, **variables)
    rows, logs = run_archs(program, "TurboQuant", SEED, skip=REFUSED, **variables)
    wanted = {name: row for name, row in cpu.items() if row.arch not in REFUSED and row.nmse_status != "SKIP"}
    wrong = {name: row for name, row in wanted.items() if row.nmse_status != "OK"}
    check(len(wanted) > 100 and not wrong, f"the CPU runs {len(wanted)} models", wrong)
    check(wanted.keys() <= rows.keys(), "the device runs every model that the CPU runs", wanted.keys() - rows.keys())
    faults = {}
    for name, row in cpu.items():
        if name not in wanted:
            continue
        ours = rows[name]
        print(f"{name}: NMSE {ours.nmse}, chunks {ours.chunks} (f16 {row.chunks}), roundtrip {ours.roundtrip}")
        if found := faults_of(ours, row):
            faults[name] = found
    for name, found in faults.items():
        print(f"FAULT {name}: {'; '.join(found)}", logs.get(name, ""), sep="\n")
    check(not faults, f"{len(wanted) - len(faults)} of {len(wanted)} models are right at {PRESET}", faults)


def refused_architectures(program, variables):
    for arch, reason in REFUSED.items():
        status, out, log = run([program, "-b", "TurboQuant", "-s", SEED, "-a", arch], **variables)
        check(status > 0 and reason in out + log, f"{arch} is refused, and its own reason is said", out, log)


def main():
    program, preload = sys.argv[1:]
    need(program, preload)
    variables = environment(preload)
    every_architecture(program, variables)
    refused_architectures(program, variables)


main()
