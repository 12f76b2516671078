#!/usr/bin/env python3
"""llama.cpp's own options that put layers, caches and tensors elsewhere (placement_test.py BIN_DIR): none ends the process, and
where nothing of ours is left the text is that of the CPU device."""
import os
import re
import sys

from support.tools import DEVICE, MODEL, check, need, run

PROMPT = "The lighthouse keeper wrote a line in his log every evening. One winter a ship struck the reef, and"
COMMON = ["-c", 512, "-t", 2, "-n", 24, "--temp", 0, "-no-cnv", "-p", PROMPT, "-v"]


def complete(tool, *options):
    status, text, log = run([tool, "-m", MODEL, *COMMON, *options], timeout=120)
    check(status == 0 and len(text) > len(PROMPT) + 40, f"{' '.join(map(str, options))} writes a text", status, text, log)
    return text, log


def main():
    tool = os.path.join(sys.argv[1], "llama-completion")
    need(tool, MODEL)
    ours = DEVICE[2:] + ["-fa", "on"]
    cpu, _ = complete(tool, "--device", "none", "-fa", "on")
    cpu_q8, _ = complete(tool, "--device", "none", "-fa", "on", "-ctk", "q8_0", "-ctv", "q8_0")

    text, log = complete(tool, *ours)
    check(re.findall(r"load_mode = (\w+)", log)[-1] == "mmap" and "CPU_Mapped" in log, "weights are mapped, not copied", log)
    check("reads the packed KV cache" not in log and "dense path" not in log, "nothing is read the slow way", log)

    complete(tool, *ours, "-ngl", 5)
    complete(tool, *ours, "-ngl", 5, "-fit", "off")
    complete(tool, *ours, "-ot", r"blk\.1.*=CPU")
    text, _ = complete(tool, *ours, "-nkvo")
    check(text == cpu, "with -nkvo the text is that of the CPU device", text, cpu)
    text, _ = complete(tool, *ours, "-ctk", "q8_0", "-ctv", "q8_0")
    check(text == cpu_q8, "with quantized K and V the text is that of the CPU device", text, cpu_q8)
    for options in (["-ctk", "q8_0"], ["-ctv", "q4_0"], ["-ctk", "f32"]):
        _, log = complete(tool, *ours, *options)
        check(log.count("K and V are not both packed") == 1, f"{options}: the dense path is said once", log)
    _, log = complete(tool, *ours, "-ctk", "f32", "-ctv", "f32")
    check("reads the packed KV cache" not in log and "dense path" not in log, "f32 caches are llama.cpp's own", log)

    status, _, log = run([tool, "-m", MODEL, *COMMON, *ours[:4], "-fa", "off"])
    check(status != 0 and log.count("in pieces of one value") >= 1, "-fa off is refused with what was stored", log)


main()
