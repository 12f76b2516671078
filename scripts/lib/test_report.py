#!/usr/bin/env python3
"""Prints where the time of a run of scripts/test went, and which tests were skipped.

test_report.py BUILD SINCE: BUILD has a folder for each preset, with Ninja's log, and log/tests-<preset>.xml; SINCE is when the
run began, in seconds since the epoch. What was built or tested before is left out.
"""
import glob
import os
import re
import sys
import xml.etree.ElementTree as xml

SHOWN = 10


def build_steps(build, since):
    """(seconds, "preset: output") of each command that has run; seconds of wall time, with whatever ran beside it."""
    for path in glob.glob(os.path.join(build, "**", ".ninja_log"), recursive=True):
        name = os.path.relpath(os.path.dirname(path), build)
        with open(path, encoding="utf-8", errors="replace") as log:
            for fields in (line.split("\t") for line in log if not line.startswith("#")):
                if len(fields) >= 4 and int(fields[2]) >= since * 1e9:
                    yield (int(fields[1]) - int(fields[0])) / 1000, f"{name}: {shortened(fields[3])}"


def shortened(output):
    return re.sub(r"CMakeFiles/[^/]*\.dir/", "", output)


def tests(build, since):
    """(seconds, "preset: test", whether it was skipped)."""
    for path in sorted(glob.glob(os.path.join(build, "log", "tests-*.xml"))):
        if os.path.getmtime(path) < since:
            continue
        preset = os.path.basename(path)[len("tests-") : -len(".xml")]
        for case in xml.parse(path).getroot().iter("testcase"):
            skipped = case.get("status") != "run" and case.find("failure") is None
            yield float(case.get("time", 0)), f"{preset}: {case.get('name')}", skipped


def print_dearest(title, timed):
    timed = sorted(timed, reverse=True)
    if not timed:
        return
    print(f"{title}: {len(timed)}, {sum(seconds for seconds, _ in timed):.0f} s in all; the dearest:")
    for seconds, name in timed[:SHOWN]:
        print(f"  {seconds:7.1f} s  {name}")


def main():
    build, since = sys.argv[1], float(sys.argv[2])
    run = list(tests(build, since))
    print_dearest("build steps", set(build_steps(build, since)))
    print_dearest("tests", [(seconds, name) for seconds, name, _ in run])
    for _, name, skipped in run:
        if skipped:
            print(f"SKIPPED: {name}")


if __name__ == "__main__":
    main()
