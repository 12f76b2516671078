#!/usr/bin/env python3
"""The plugin under AddressSanitizer and UndefinedBehaviorSanitizer in an unmodified llama.cpp.

sanitized_test.py PLUGIN LIBASAN BIN_DIR PRELOAD: PLUGIN is that of the preset asan-ubsan-plugin. The host has no sanitizer,
so that LIBASAN is loaded before it; an error that it finds ends the program.
"""
import os
import sys

from support.archs import run_archs
from support.tools import DEVICE, MODEL, check, need, run

REFUSED = {"grok"}  # llama.cpp switches flash attention off for it
FINDINGS = ("AddressSanitizer:", "runtime error:")
PRESETS = ["fast", "balanced", "tiny"]


def variables(preset):
    plugin, libasan, bin_dir, preload = sys.argv[1:]
    return {
        "GGML_BACKEND_PATH": plugin,
        "LD_PRELOAD": f"{libasan}:{preload}",
        "LD_LIBRARY_PATH": os.path.abspath(bin_dir),
        "TURBOQUANT_KV": preset,
        "TQ_TEST_FLASH_ATTENTION": "1",
        # What lives until the host ends is no leak.
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }


def is_clean(text):
    return not any(finding in text for finding in FINDINGS)


def instrumented():
    with open(sys.argv[1], "rb") as file:
        symbols = file.read()
    check(b"__asan_report_load" in symbols and b"__ubsan_handle" in symbols, "the plugin has both sanitizers")


def architectures():
    rows, logs = run_archs(os.path.join(sys.argv[3], "test-llama-archs"), "TurboQuant", 1, REFUSED, 400, **variables("k8cv8"))
    ran = {name: row for name, row in rows.items() if row.nmse_status != "SKIP"}
    wrong = [name for name, row in ran.items() if row.nmse_status != "OK"]
    check(len(ran) > 100 and not logs and not wrong, f"{len(ran)} models of test-llama-archs run clean", wrong, *logs.values())


def real_model():
    for preset in PRESETS:
        for tool, options in (
            ("llama-completion", ["-p", "The lighthouse keeper", "-n", 8, "-c", 256, "-no-cnv"]),
            ("test-save-load-state", ["-n", 4]),
            ("test-state-restore-fragmented", []),
        ):
            command = [os.path.join(sys.argv[3], tool), *DEVICE, "-fa", "on", "-t", 2, *options]
            status, out, log = run(command, **variables(preset))
            check(status == 0 and is_clean(out + log), f"{tool} runs clean, {preset}", out, log)


def main():
    need(MODEL, *sys.argv[1:])
    instrumented()
    architectures()
    real_model()


main()
