#!/usr/bin/env python3
"""llama.cpp's tests of states on the TurboQuant device (states_test.py BIN_DIR PRELOAD).

test-save-load-state and test-recurrent-state-rollback over small random models of every architecture (those that
test-llama-archs writes), test-save-load-state, test-state-restore-fragmented and test-thread-safety with a real model:
what passes with an f16 cache must pass on the device.
"""
import os
import sys
import tempfile

from support.states import differences, run_table
from support.tools import DEVICE, MODEL, check, need, run

# One preset of each kind: centered keys with exact cells, neither, trellis codes, many exact cells.
PRESETS = ["fast", "k4v4", "balanced", "tiny"]
TABLES = {"test-save-load-state": "fast", "test-recurrent-state-rollback": "fast"}
# Graphs that the reservation at the start did not cover end the program: llama.cpp's own setting for this test.
STRICT = {"GGML_SCHED_DEBUG_REALLOC": "1"}


def tool(name):
    return os.path.join(sys.argv[1], name)


def device_variables(preset):
    # test-save-load-state has one test without flash attention, which the device refuses: the preload runs it with.
    return {
        "LD_PRELOAD": sys.argv[2],
        "LD_LIBRARY_PATH": os.path.abspath(sys.argv[1]),
        "TQ_TEST_FLASH_ATTENTION": "1",
        "TURBOQUANT_KV": preset,
    }


def tables(folder):
    status, _, log = run([tool("test-llama-archs"), "-o", folder, "-s", 1], GGML_BACKEND_PATH="")
    models = os.listdir(folder)
    check(status == 0 and len(models) > 100, f"test-llama-archs writes {len(models)} models", log)
    for program, preset in TABLES.items():
        f16, log = run_table(tool(program), folder, GGML_BACKEND_PATH="", **STRICT)
        check(len(f16) == len(models), f"{program} runs {len(f16)} models with f16", log)
        ours, log = run_table(tool(program), folder, "--device", "TurboQuant", "-ngl", 99, **STRICT, **device_variables(preset))
        faults = differences(f16, ours)
        passed = sum(row.count("PASS") for row in ours.values())
        wanted = sum(row.count("PASS") for row in f16.values())
        check(wanted > len(models) / 2 and not faults, f"{program}, {preset}: {passed} passed, f16 {wanted}", *faults, log)


def real_model():
    for preset in PRESETS:
        command = [tool("test-save-load-state"), *DEVICE, "-fa", "on", "-t", 2, "-n", 8]
        status, out, log = run(command, **device_variables(preset))
        check(status == 0 and "All tests passed" in out, f"test-save-load-state, {preset}", out, log)
        command = [tool("test-state-restore-fragmented"), *DEVICE, "-fa", "on", "-t", 2]
        status, out, log = run(command, TURBOQUANT_KV=preset)
        check(status == 0 and "SUCCESS" in out + log, f"test-state-restore-fragmented, {preset}", out, log)


def thread_safety():
    options = ["-fa", "on", "-p", "The meaning of life is", "-n", 24, "-c", 256, "-ub", 32, "-np", 4, "-t", 1]
    status, out, log = run([tool("test-thread-safety"), *DEVICE, *options], TURBOQUANT_KV="fast")
    check(status == 0 and "All threads finished without errors" in out + log, "test-thread-safety", out, log)


def main():
    programs = ["test-llama-archs", *TABLES, "test-state-restore-fragmented", "test-thread-safety"]
    need(MODEL, sys.argv[2], *map(tool, programs))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # the programs write files where they run
        os.mkdir("models")
        tables("models")
        real_model()
        thread_safety()
        os.chdir("/")


main()
