"""llama.cpp's test-save-load-state and test-recurrent-state-rollback: their tables over a folder of small models."""
import re

from support.archs import COLOR
from support.tools import run

ROW = re.compile(r"^(\S+\.gguf)((?:\s+(?:PASS|FAIL|SKIP))*)\s*$")


def read_table(output):
    """{model: [PASS, FAIL or SKIP of each test]}; a model that ended the program has fewer of them."""
    found = (ROW.match(line) for line in COLOR.sub("", output).splitlines())
    return {row[1]: row[2].split() for row in found if row}


def differences(f16, device):
    """[(model, test, result)] of what passes with an f16 cache and not on the device."""
    faults = []
    for model, wanted in f16.items():
        got = device.get(model, [])
        for column, result in enumerate(wanted):
            ours = got[column] if column < len(got) else "not run"
            if result == "PASS" and ours != "PASS":
                faults.append((model, column + 1, ours))
    return faults


def run_table(program, folder, *options, timeout=280, **environment):
    """(table, the end of the log) of one run over a folder of models."""
    command = [program, "--models", folder, "-t", 2, "-fa", "on", *options]
    status, out, log = run(command, timeout, **environment)
    return read_table(out), f"exit status {status}\n{out[-1000:]}\n{log[-3000:]}"
