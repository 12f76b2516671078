"""Decode speed of an mlx-lm model with packed caches beside mlx-lm's dense one, as a Markdown table: mlx_decode.py MODEL
[--cells N ...]. The context is random tokens: what they say does not change the time."""

import argparse
import statistics
import time

import mlx.core as mx
import mlx_lm
from mlx_lm.models.cache import KVCache

import turboquant_cpp.mlx as tq

PRESETS = ("k8v8", "k4v4", "fast")
STEPS, ROUNDS, PROMPT_CHUNK = 32, 5, 512


def fill(model, cache, n_cells):
    tokens = mx.random.randint(0, 1000, (1, n_cells), key=mx.random.key(0))
    for first in range(0, n_cells, PROMPT_CHUNK):
        mx.eval(model(tokens[:, first : first + PROMPT_CHUNK], cache=cache))


def seconds_of_steps(model, cache):
    token = mx.array([[1]])
    begin = time.perf_counter()
    for _ in range(STEPS):
        token = mx.argmax(model(token, cache=cache)[:, -1:], axis=-1)
        mx.async_eval(token)
    mx.eval(token)
    return time.perf_counter() - begin


def tokens_per_second(model, caches, n_cells):
    """The median of each cache; rounds take turns, so that a machine that slows down slows all."""
    for cache in caches:
        fill(model, cache, n_cells)
        seconds_of_steps(model, cache)
    rounds = [[seconds_of_steps(model, cache) for cache in caches] for _ in range(ROUNDS)]
    return [STEPS / statistics.median(times) for times in zip(*rounds)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--cells", type=int, nargs="+", default=[512, 4096, 7680])
    options = parser.parse_args()
    model, _ = mlx_lm.load(options.model)
    model.set_dtype(mx.float16)
    print(f"Tokens per second, {mx.default_device()}, median of {ROUNDS} rounds of {STEPS} tokens\n")
    print("| cells | dense f16 | " + " | ".join(PRESETS) + " |\n|---|" + "---|" * (1 + len(PRESETS)))
    for n_cells in options.cells:
        caches = [[KVCache() for _ in model.layers]] + [tq.make_prompt_cache(model, preset=p) for p in PRESETS]
        speeds = tokens_per_second(model, caches, n_cells)
        print(f"| {n_cells} | " + " | ".join(f"{speed:.1f}" for speed in speeds) + " |", flush=True)


if __name__ == "__main__":
    main()
