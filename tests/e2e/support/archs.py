"""llama.cpp's test-llama-archs: runs it on a device, architecture by architecture, and reads its table."""
import dataclasses
import re

from support.tools import check, run

COLOR = re.compile(r"\x1b\[[0-9;]*m")
# |arch|device|config|   OK (7.12e-08)|   OK|  OK (0.00e+00)|
ROW = re.compile(r"^\| *([\w.-]+)\|[^|]*\| *(Dense|MoE)\|(.*)$")
CELLS = re.compile(r"(OK|FAIL|SKIP)([^|]*)\| *(OK|FAIL|SKIP) *\| *(OK|FAIL|SKIP)([^|]*)\|$")
MAX_LOST = 4
NUMBER = re.compile(r"\(([^()]*[\d.][^()]*|-?nan|-?inf)\)")


@dataclasses.dataclass
class Row:
    """Results of one model: normalized mean squared errors are None where the program did not compute them."""

    arch: str
    config: str
    ended: bool
    nmse_status: str = "NONE"
    nmse: float | None = None
    roundtrip: str = "NONE"
    chunks_status: str = "NONE"
    chunks: float | None = None

    @property
    def name(self):
        return f"{self.arch} ({self.config})"


def number(text):
    found = NUMBER.search(text)
    return float(found[1]) if found else None


def read_rows(output):
    """The rows of the table; one that has no results is the model that ended the program."""
    rows = []
    for line in COLOR.sub("", output).splitlines():
        head = ROW.match(line)
        if not head:
            continue
        cells = CELLS.search(head[3])
        if cells:
            rows.append(Row(head[1], head[2], True, cells[1], number(cells[2]), cells[3], cells[4], number(cells[5])))
        else:
            rows.append(Row(head[1], head[2], False))
    return rows


def run_archs(program, device, seed, skip=(), timeout=280, **environment):
    """(rows by name, logs of the models that ended the program): whatever ends it, the models behind are run, too.

    The program writes its table in the background and does not always wait for it: what is missing before the summary of
    a program that ended well is run again, MAX_LOST times at most.
    """
    rows, logs = {}, {}
    done = set(skip)
    lost = 0
    while True:
        pattern = "^(?!(" + "|".join(sorted(map(re.escape, done))) + ")$)" if done else "."
        status, out, log = run([program, "-b", device, "-s", seed, "-a", pattern], timeout, **environment)
        found = read_rows(out)
        complete = "Summary:" in out
        if not complete and (status == 0 or not found or found[-1].ended):
            lost += 1
            check(lost <= MAX_LOST, f"{program} writes its whole table", out, log)
            found = [row for row in found if row.arch != found[-1].arch]
            rows |= {row.name: row for row in found if row.arch not in done}
            done |= {row.arch for row in found}
            continue
        rows |= {row.name: row for row in found if row.arch not in done}
        if complete:
            return rows, logs
        logs[found[-1].name] = f"exit status {status}\n{out[-1500:]}\n{log[-3000:]}"
        done |= {row.arch for row in found}
