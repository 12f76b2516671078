#!/usr/bin/env python3
"""Makes each barrier of a flattened Metal text one that a test can leave out: removable_barriers.py IN OUT OUT.h.

Barrier n is left out where the function constant 999 is n. OUT.h is a list of "file:line" of all."""
import re
import sys

BARRIER = re.compile(r"(?<![\w:])((?:metal::)?(?:threadgroup|simdgroup)_barrier\s*\()")
LINE = re.compile(r'#line (\d+) "([^"]*)"')
INCLUDE = "#include <metal_stdlib>"


def main() -> None:
    source, text_path, list_path = sys.argv[1:]
    out, places, file, line = [], [], "", 0
    with open(source) as lines:
        for raw in lines.read().splitlines():
            marker = LINE.match(raw)
            if marker:
                line, file = int(marker[1]) - 1, marker[2]

            def removable(match: re.Match) -> str:
                places.append(f"{file}:{line}")
                return f"if (removed_barrier != {len(places) - 1}) {match[1]}"

            code, comment, rest = raw.partition("//")
            out.append(BARRIER.sub(removable, code) + comment + rest)
            if raw.strip() == INCLUDE and INCLUDE not in out[:-1]:
                out[-1] += f'\nconstant int removed_barrier [[function_constant(999)]];\n#line {line + 1} "{file}"'
            line += 1
    with open(text_path, "w") as text:
        text.write("\n".join(out) + "\n")
    with open(list_path, "w") as names:
        names.write("".join(f'"{place}",\n' for place in places))


if __name__ == "__main__":
    main()
