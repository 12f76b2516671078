#!/usr/bin/env python3
"""llama-server with drafts (server_speculation_test.py BIN_DIR): greedy text with speculation is the text without.

The draft model is the model itself, so that nearly every draft is accepted where its cache is the target's, and what is
rejected is taken back.
"""
import os
import sys

from support.server import F16, PROMPTS, TURBOQUANT, running
from support.tools import MODEL, check, need

N_MAX = (2, 8, 16)
N_TOKENS = 64
# The default preset's reserve holds 16 rejected drafts from 2560 cells on.
CONTEXT = ["-np", 1, "-c", 4096, "--cache-ram", 0]
PRESETS = [("f16", F16), ("fast", TURBOQUANT)]


def generate(server):
    """[(text, drafts, accepted drafts)] of two prompts."""
    answers = [server.complete(prompt, n=N_TOKENS, cache_prompt=False) for prompt in PROMPTS[:2]]
    timings = [answer["timings"] for answer in answers]
    return [(a["content"], t.get("draft_n", 0), t.get("draft_n_accepted", 0)) for a, t in zip(answers, timings)]


def main():
    tool = os.path.join(sys.argv[1], "llama-server")
    need(tool, MODEL)
    for name, where in PRESETS:
        with running(tool, where, *CONTEXT, preset=name) as server:
            plain = generate(server)
        check(all(text and drafts == 0 for text, drafts, _ in plain), f"{name}: text without drafts", plain)
        for n_max in N_MAX:
            drafting = ["--spec-type", "draft-simple", "-md", MODEL, "--spec-draft-n-max", n_max]
            with running(tool, where, *CONTEXT, *drafting, preset=name) as server:
                drafted = generate(server)
            proposed, accepted = (sum(row[column] for row in drafted) for column in (1, 2))
            what = f"{name}, n-max {n_max}: {accepted} of {proposed} drafts accepted"
            check(proposed > N_TOKENS and accepted > 0.8 * proposed, what, drafted)
            for (text, *_), (expected, *_) in zip(drafted, plain):
                check(text == expected, f"{what}: the text is that without", expected, text)


main()
