"""PyTorch's attention over bf16 caches, in the shapes that tq_cuda_bench has printed: the best of FlashAttention and
cuDNN, with grouped heads as such and as tokens of one head. Reads the JSON object from a file, prints a list."""

import json
import statistics
import sys

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

BEYOND_L2 = 512 << 20  # bytes of all caches together, at least


def caches(shape):
    """(K, V) pairs that a graph goes through in turn."""
    size = (shape["n_stream"], shape["n_head_kv"], shape["n_kv"], shape["head_dim"])
    count = max(1, min(64, BEYOND_L2 // (4 * torch.Size(size).numel()) + 1))
    return [tuple(torch.randn(size, dtype=torch.bfloat16, device="cuda") for _ in range(2)) for _ in range(count)]


def variants(shape):
    """Ways to ask for it: name, backend, q, arguments."""
    batch, dim, heads, heads_kv = (shape[k] for k in ("n_stream", "head_dim", "n_head", "n_head_kv"))
    grouped = torch.randn(batch, heads, 1, dim, dtype=torch.bfloat16, device="cuda")
    as_tokens = grouped.reshape(batch, heads_kv, heads // heads_kv, dim)
    for name, backend in (("flash", SDPBackend.FLASH_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION)):
        yield f"{name} gqa", backend, grouped, {"enable_gqa": heads != heads_kv}
        yield f"{name} packed", backend, as_tokens, {}


def graph_us(launch, count):
    """Microseconds a launch, of launches back to back in a graph."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for i in range(3):
            launch(i)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(count):
            launch(i)
    times = []
    for _ in range(8):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(1000 * begin.elapsed_time(end) / count)
    return statistics.median(times[1:])


def best(shape):
    pairs = caches(shape)
    times = {}
    for name, backend, q, options in variants(shape):
        def launch(i, q=q, options=options):
            k, v = pairs[i % len(pairs)]
            return scaled_dot_product_attention(q, k, v, **options)
        try:
            with sdpa_kernel(backend):
                times[name] = graph_us(launch, max(len(pairs), 8))
        except RuntimeError as error:  # a backend that does not take the shape
            print(f"{name}: {str(error).splitlines()[0]}", file=sys.stderr)
    name = min(times, key=times.get)
    return {"graph_us": times[name], "backend": name, "all": times}


def main():
    shapes = json.load(open(sys.argv[1], encoding="utf-8"))["attention"]
    seen, results = set(), []
    keys = ("head_dim", "n_head", "n_head_kv", "n_stream", "n_kv")
    for shape in shapes:
        key = tuple(shape[k] for k in keys)
        if key in seen or shape["n_tokens"] != 1 or shape["n_stream"] * shape["n_kv"] > 1 << 20:
            continue
        seen.add(key)
        results.append(dict(zip(keys, key)) | best(shape))
        torch.cuda.empty_cache()
    print(json.dumps({"torch": torch.__version__, "bf16": results}, indent=1))


if __name__ == "__main__":
    main()
