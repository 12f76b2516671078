"""Puts tq_cuda_bench's times beside PyTorch's: bench_gpu_table.py OURS.json TORCH.json"""

import json
import sys

KEYS = ("head_dim", "n_head", "n_head_kv", "n_stream", "n_kv")


def main():
    ours = json.load(open(sys.argv[1], encoding="utf-8"))
    torch = json.load(open(sys.argv[2], encoding="utf-8"))
    bf16 = {tuple(row[k] for k in KEYS): row for row in torch["bf16"]}
    bandwidth = ours["read_bytes_per_s"]
    print(f"{ours['device']}, reads {bandwidth / 1e12:.2f} TB/s; PyTorch {torch['torch']}; CUDA graphs, microseconds\n")
    print("| preset | heads | head_dim | sequences x cells | tokens | us | of the read bandwidth | bf16 us | times as fast |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in ours["attention"]:
        rival = bf16.get(tuple(row[k] for k in KEYS)) if row["n_tokens"] == 1 else None
        share = row["bytes"] / (row["graph_us"] * 1e-6) / bandwidth
        against = (f"{rival['graph_us']:.1f} ({rival['backend']})", f"{rival['graph_us'] / row['graph_us']:.2f}") \
            if rival else ("", "")
        preset = row["preset"] + (", batch-invariant" if row["batch_invariant"] else "")
        print(f"| {preset} | {row['n_head']}/{row['n_head_kv']} | {row['head_dim']} | {row['n_stream']} x {row['n_kv']} "
              f"| {row['n_tokens']} | {row['graph_us']:.1f} | {100 * share:.0f}% | {against[0]} | {against[1]} |")


if __name__ == "__main__":
    main()
