#!/usr/bin/env python3
"""llama-server's slots on the TurboQuant device and with f16 (server_test.py BIN_DIR).

Slots side by side, in cells that were used before, saved and restored, prefixes reused, contexts shifted.
"""
import os
import sys

from support.server import PROMPTS, both
from support.tools import MODEL, check, need

PRESETS = ("fast", "k4v4")


def texts(answers):
    return [answer.get("content") for answer in answers]


def n_equal(left, right):
    return sum(a == b and bool(a) for a, b in zip(left, right))


def slots_side_by_side(server):
    """Texts of the same requests alone, at the same time in fresh cells, and once more after other text was there."""
    together = texts(server.complete_all(PROMPTS, cache_prompt=False))
    server.complete_all([prompt * 4 for prompt in reversed(PROMPTS)], cache_prompt=False)
    reused = texts(server.complete_all(PROMPTS, cache_prompt=False))
    alone = texts(server.complete(prompt, slot=i, cache_prompt=False) for i, prompt in enumerate(PROMPTS))
    return {"alone": alone, "together": together, "reused": reused}


def slots_per_stream(tool):
    results = both(tool, slots_side_by_side, "-np", 4, "-c", 2048, "--no-kv-unified", presets=PRESETS)
    for name, result in results.items():
        alone = result["alone"]
        check(all(alone), f"{name}: every request is answered", alone)
        for way in ("together", "reused"):
            same = n_equal(alone, result[way])
            check(same == len(PROMPTS), f"{name}, {way}: {same} of 4 texts are those of the request alone", alone, result[way])


def saved_slot(server):
    story = PROMPTS[0] + server.complete(PROMPTS[0], slot=0)["content"]
    _, saved = server.request("/slots/0?action=save", {"filename": "slot"})
    expected = server.complete(story, slot=0)["content"]
    server.complete(PROMPTS[1], slot=0)
    _, restored = server.request("/slots/0?action=restore", {"filename": "slot"})
    after = server.complete(story, slot=0)
    return {"saved": saved, "restored": restored, "expected": expected, "after": after}


def slots_saved_and_restored(tool):
    for name, result in both(tool, saved_slot, "-np", 2, "-c", 1024, presets=PRESETS).items():
        saved, restored, after = result["saved"], result["restored"], result["after"]
        check(saved["n_saved"] == restored["n_restored"] > 40, f"{name}: a slot is saved and restored", saved, restored)
        check(after["timings"]["prompt_n"] < 8, f"{name}: the restored tokens are not computed again", after)
        check(after["content"] == result["expected"], f"{name}: a restored slot continues as before", result)


def prefix_reuse(server):
    """A prompt whose beginning is in the slot already, behind it another end; the same prompt cold."""
    beginning = " ".join(PROMPTS)
    ends = [" Then the", " What comes next is", " One day"]
    server.complete(beginning + ends[0], slot=0)
    warm = [server.complete(beginning + end, slot=0) for end in ends[1:]]
    cold = [server.complete(beginning + end, slot=0, cache_prompt=False) for end in ends[1:]]
    return {"warm": texts(warm), "cold": texts(cold), "computed": [answer["timings"]["prompt_n"] for answer in warm]}


def prefixes_reused(tool):
    # Behind a prefix the window is that of a cold prompt as far as the reserve holds what was taken back: 33 rows here.
    results = both(tool, prefix_reuse, "-np", 1, "-c", 1024, presets=("fast+reserve64", "k4v4"))
    for name, result in results.items():
        check(max(result["computed"]) < 16, f"{name}: the prefix is not computed again", result)
        same, wanted = n_equal(result["warm"], result["cold"]), n_equal(results["f16"]["warm"], results["f16"]["cold"])
        check(same >= wanted > 0, f"{name}: {same} of 2 texts behind a reused prefix are the cold ones (f16 {wanted})", result)


def context_shift(server):
    return server.complete(PROMPTS[0], n=300, ignore_eos=True)


def contexts_shifted(tool):
    for name, answer in both(tool, context_shift, "-np", 1, "-c", 256, "--context-shift").items():
        check(answer["tokens_predicted"] == 300, f"{name}: generation goes on past the end of the context", answer)
        words = answer["content"].split()
        check(len(set(words)) > 20, f"{name}: the text behind a shift is no noise", answer["content"])


def main():
    tool = os.path.join(sys.argv[1], "llama-server")
    need(tool, MODEL)
    slots_per_stream(tool)
    slots_saved_and_restored(tool)
    prefixes_reused(tool)
    contexts_shifted(tool)


main()
