#!/usr/bin/env python3
"""llama-completion of a host (completion_test.py BIN_DIR), whatever its backend API: loads the plugin, packs the cache, and
gives the same greedy text with one thread and with two."""
import os
import sys

from support.tools import DEVICE, KV_BUFFER, MODEL, check, need, run

PROMPT = "The lighthouse keeper wrote a line in his log every evening. One winter a ship struck the reef, and"


def complete(tool, threads):
    command = [tool, *DEVICE, "-fa", "on", "-c", 1024, "-t", threads, "-n", 64, "--temp", 0, "-no-cnv", "-p", PROMPT]
    # -v: newer releases keep the KV buffer line for it
    status, text, log = run([*command, "-v"])
    check(status == 0, f"llama-completion with {threads} threads ends well", log)
    return text, log


def main():
    tool = os.path.join(sys.argv[1], "llama-completion")
    need(tool, MODEL)
    one, log = complete(tool, 1)
    two, _ = complete(tool, 2)
    check(len(one) > len(PROMPT) + 100, "it wrote something", one)
    check(one == two, "the text is the same with 1 and 2 threads", one, two)
    sizes = [float(size) for size in KV_BUFFER.findall(log)]
    check(sizes, "the KV buffer is the device's", log)
    # 30 layers of 3 heads of 64 dims, K and V, 1024 cells of 4.22 bits, 16 of them and a reserve of 4 in
    # f16 too: the default preset, fast
    expected = 30 * 2 * 3 * 64 * (1024 * 4.22 + 20 * 16) / 8 / 2**20
    # newer releases first size a context without memory, which says 0
    check(abs(max(sizes) / expected - 1) < 0.01, f"the KV buffer is {expected:.2f} MiB within 1%", sizes)


main()
