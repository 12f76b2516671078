#!/usr/bin/env python3
"""One text of a shader and all that it includes, as Metal's run-time compiler takes it: flatten.py ROOT FILE...

`#include "path"` is replaced by the file, once, as if each file had `#pragma once`; the path is looked up beside the
including file, then from ROOT. `#include <...>` stays. Lines are numbered as in the files (#line)."""
import re
import sys
from pathlib import Path

INCLUDE = re.compile(r'\s*#\s*include\s*"([^"]+)"')


def flatten(root: Path, path: Path, seen: set[Path], out: list[str]) -> None:
    if path in seen:
        return
    seen.add(path)
    name = path.relative_to(root) if path.is_relative_to(root) else path.name
    out.append(f'#line 1 "{name}"')
    for number, line in enumerate(path.read_text().splitlines(), 1):
        include = INCLUDE.match(line)
        if include:
            candidates = [path.parent / include[1], root / include[1]]
            found = next((c.resolve() for c in candidates if c.is_file()), None)
            if found is None:
                sys.exit(f"{path}:{number}: there is no file {include[1]} beside it or in {root}")
            flatten(root, found, seen, out)
            out.append(f'#line {number + 1} "{name}"')
        elif re.match(r"\s*#\s*pragma\s+once", line):
            out.append("")
        else:
            out.append(line)


def main() -> None:
    root = Path(sys.argv[1]).resolve()
    out: list[str] = []
    seen: set[Path] = set()
    for file in sys.argv[2:]:
        flatten(root, Path(file).resolve(), seen, out)
    sys.stdout.write("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
