#!/usr/bin/env python3
"""llama-server's prompt cache in RAM (server_memory_test.py BIN_DIR): what it takes, and that a prompt comes back.

More conversations than slots: the server moves the state of the one that waits to RAM and back.
"""
import os
import sys

from support.server import PROMPTS, both
from support.tools import MODEL, check, need

PRESETS = ("fast", "k4v4")
# "- cache state: 3 prompts, 12.345 MiB (limits: ...)"
PROMPTS_AND_MIB = r"cache state: \d+ prompts, ([0-9.]+) MiB"


def conversations(server):
    """Every prompt cold, then all once more: each has been driven out of the only slot by the next one."""
    prompts = [prompt + " " + " ".join(PROMPTS) for prompt in PROMPTS]
    cold = [server.complete(prompt, n=24) for prompt in prompts]
    back = [server.complete(prompt + answer["content"], n=24) for prompt, answer in zip(prompts, cold)]
    fresh = [
        server.complete(prompt + answer["content"], n=24, cache_prompt=False) for prompt, answer in zip(prompts, cold)
    ]
    return {
        "back": [answer["content"] for answer in back],
        "fresh": [answer["content"] for answer in fresh],
        "computed": [answer["timings"]["prompt_n"] for answer in back],
        "mib": server.metric(PROMPTS_AND_MIB),
    }


def main():
    tool = os.path.join(sys.argv[1], "llama-server")
    need(tool, MODEL)
    results = both(tool, conversations, "-np", 1, "-c", 1024, "--cache-ram", 512, "-lv", 5, presets=PRESETS)
    f16 = results["f16"]
    wanted = sum(a == b for a, b in zip(f16["back"], f16["fresh"]))
    check(max(f16["computed"]) < 16 and f16["mib"], "f16: prompts come back from RAM", f16)
    for name, result in results.items():
        same = sum(a == b for a, b in zip(result["back"], result["fresh"]))
        what = f"{name}: {same} of {len(PROMPTS)} prompts that came back go on as if computed anew (f16 {wanted})"
        check(max(result["computed"]) < 16, f"{name}: a prompt that comes back is not computed again", result)
        check(same >= wanted > 0, what, result)
        # llama.cpp keeps states as the host sees rows, f16: no more than that.
        check(result["mib"] <= 1.05 * f16["mib"], f"{name}: {result['mib']} MiB in RAM (f16 {f16['mib']})", result)


main()
