"""What the script tests share: skipping, running llama.cpp's tools on the TurboQuant device, checks."""
import os
import re
import subprocess
import sys

MODEL = os.environ["TQ_MODEL"]
DEVICE = ["-m", MODEL, "--device", "TurboQuant", "-ngl", "99"]
KV_BUFFER = re.compile(r"TurboQuant KV buffer size =\s*([0-9.]+) MiB")


def need(*paths):
    """Ends the script as skipped (as failed with TQ_REQUIRE_E2E) if a file that scripts/test makes is not there."""
    for path in paths:
        if not os.path.exists(path):
            print(f"{path} is not there: run scripts/test")
            sys.exit(1 if os.environ.get("TQ_REQUIRE_E2E") else 77)


def run(command, timeout=240, **environment):
    """(exit status, stdout, stderr); a negative status is the signal that ended the tool."""
    done = subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout,
        env={**os.environ, **environment},
        check=False,
    )
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def check(ok, what, *evidence):
    if not ok:
        print(f"FAILED: {what}", *(str(e)[-4000:] for e in evidence), sep="\n", flush=True)
        sys.exit(1)
    print(f"ok: {what}", flush=True)
