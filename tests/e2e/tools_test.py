#!/usr/bin/env python3
"""llama-bench and llama-perplexity on the TurboQuant device (tools_test.py BIN_DIR), and what they say where it can't work."""
import os
import re
import sys
import tempfile

from support.tools import DEVICE, MODEL, check, need, run


def text_of_repository():
    """Prose that is there in every clone."""
    texts = []
    root = os.environ["TQ_REPOSITORY"]
    for folder in (root, os.path.join(root, "docs")):
        for name in sorted(os.listdir(folder) if os.path.isdir(folder) else []):
            if name == "LICENSE" or name.endswith(".md"):
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    texts.append(file.read())
    text = "\n".join(texts)
    return text * (1 + 8000 // len(text))


def bench(bin_dir):
    command = [os.path.join(bin_dir, "llama-bench"), "-m", MODEL, "-dev", "TurboQuant", "-ngl", 99, "-p", 64, "-n", 8, "-r", 1]
    status, table, log = run([*command, "-t", 2, "-fa", 1])
    check(status == 0 and "pp64" in table and "tg8" in table, "llama-bench measures", table, log)


def without_flash_attention(bin_dir):
    tool = os.path.join(bin_dir, "llama-completion")
    status, _, log = run([tool, *DEVICE, "-fa", "off", "-c", 512, "-n", 4, "-no-cnv", "-p", "Hello"])
    check(status > 0, f"-fa off ends with an error, not with success or a signal (status {status})", log)
    check("run with -fa on" in log, "-fa off says what to do", log)


def kl_divergence(bin_dir):
    tool = os.path.join(bin_dir, "llama-perplexity")
    with tempfile.TemporaryDirectory() as folder:
        text, base = os.path.join(folder, "text"), os.path.join(folder, "base")
        with open(text, "w", encoding="utf-8") as file:
            file.write(text_of_repository())
        common = ["-f", text, "-c", 512, "-b", 512, "--chunks", 2, "-t", 2, "-fa", "on", "--kl-divergence-base", base]
        status, _, log = run([tool, "-m", MODEL, "--device", "none", *common])
        check(status == 0, "llama-perplexity writes the f16 base", log)
        status, out, log = run([tool, *DEVICE, *common, "--kl-divergence"])
        check(status == 0, "llama-perplexity runs on the packed cache", out, log)
    mean = re.search(r"Mean\s+KLD:\s*([0-9.eE+-]+)", out + log)
    check(mean and 0 < float(mean[1]) < 0.15, f"mean KLD {mean and mean[1]} is below 0.15", out)


def main():
    bin_dir = sys.argv[1]
    need(MODEL, *(os.path.join(bin_dir, tool) for tool in ("llama-bench", "llama-completion", "llama-perplexity")))
    bench(bin_dir)
    without_flash_attention(bin_dir)
    kl_divergence(bin_dir)


main()
