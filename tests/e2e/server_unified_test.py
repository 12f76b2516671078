#!/usr/bin/env python3
"""llama-server with one cache for all slots (server_unified_test.py BIN_DIR): what neighbours change.

In a unified cache a sequence's cells lie elsewhere beside others, and the first token's log-probabilities move, as they do
with f16. They must not move by more than the cache's own accuracy: its distance from f16 for the same request alone.
"""
import os
import sys

from support.server import PROMPTS, both
from support.tools import MODEL, check, need

PRESETS = ("k4v4", "k8v8", "fast")
MORE_PROMPTS = [
    "The old clock in the hall had stopped at noon, and nobody",
    "To change a tyre, first loosen the nuts, then",
    "Dear Sir, I am writing to you about",
    "The three largest planets are",
]
# Two sums of independent errors of one size differ by 1.4 of it; eight prompts scatter.
MAX_RATIO = 2.5


def log_probabilities(answer):
    return {token["id"]: token["logprob"] for token in answer["completion_probabilities"][0]["top_logprobs"]}


def mean_distance(left, right):
    """The mean over requests of the largest difference among the tokens that both list."""
    largest = [max(abs(a[token] - b[token]) for token in a if token in b) for a, b in zip(left, right)]
    return sum(largest) / len(largest)


def first_tokens(server):
    prompts = PROMPTS + MORE_PROMPTS
    options = {"n": 1, "n_probs": 5, "cache_prompt": False}
    alone = [log_probabilities(server.complete(prompt, **options)) for prompt in prompts]
    together = [log_probabilities(answer) for answer in server.complete_all(prompts, **options)]
    return {"alone": alone, "together": together}


def main():
    tool = os.path.join(sys.argv[1], "llama-server")
    need(tool, MODEL)
    options = ["-np", 8, "-c", 2048, "--kv-unified", "--cache-ram", 0]
    results = both(tool, first_tokens, *options, presets=PRESETS)
    f16 = results.pop("f16")
    f16_moves = mean_distance(f16["alone"], f16["together"])
    for name, result in results.items():
        own = mean_distance(f16["alone"], result["alone"])
        moves = mean_distance(result["alone"], result["together"])
        what = f"{name}: neighbours move log-probabilities by {moves:.3f} (f16 {f16_moves:.3f}), its own error is {own:.3f}"
        check(0 < own and moves <= MAX_RATIO * own + f16_moves, what)


main()
