#!/usr/bin/env python3
"""The shaders' text as a C++ function: embed.py ROOT OUTPUT FILE... writes OUTPUT, which defines tq::metal_source()."""
import subprocess
import sys
from pathlib import Path

PIECE = 8192  # bytes of a string literal: compilers have limits


def main() -> None:
    root, output, files = sys.argv[1], sys.argv[2], sys.argv[3:]
    flatten = Path(__file__).parent / "flatten.py"
    text = subprocess.run([sys.executable, str(flatten), root, *files], check=True, capture_output=True, text=True).stdout
    pieces = "\n".join(f'        R"shader({text[i:i + PIECE]})shader",' for i in range(0, len(text), PIECE))
    Path(output).write_text(f"""#include "turboquant/metal/launch.h"

namespace tq {{

const std::string& metal_source() {{
    static const std::string text = [] {{
        std::string all;
        for (const char* piece : {{
{pieces}
             }})
            all += piece;
        return all;
    }}();
    return text;
}}

}}  // namespace tq
""")


if __name__ == "__main__":
    main()
