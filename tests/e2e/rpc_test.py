#!/usr/bin/env python3
"""llama.cpp's RPC server on the TurboQuant device (rpc_test.py BIN_DIR): it writes what it writes on the CPU device, says that
the cache is not packed there, serves one client after another, and goes on when a client is killed."""
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

from support.server import free_port
from support.tools import MODEL, check, need, run

PROMPT = "The lighthouse keeper wrote a line in his log every evening. One winter a ship struck the reef, and"
CELLS = 512
NOT_PACKED = "turboquant: this KV cache is not packed"
KV_BUFFER = re.compile(r"RPC0\S* KV buffer size =\s*([0-9.]+) MiB")
F16_MIB = 30 * 2 * 3 * 64 * CELLS * 2 / 2**20  # 30 layers of 3 heads of 64 dims, K and V


class RpcServer:
    def __init__(self, process, port, log_path):
        self.process, self.port, self.log_path = process, port, log_path

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def alive(self):
        return self.process.poll() is None

    def wait_until(self, ready, what):
        for _ in range(600):
            if not self.alive() or ready():
                break
            time.sleep(0.1)
        check(self.alive() and ready(), what, f"exit status {self.process.poll()}", self.log())

    def listens(self):
        """The server accepts connections behind the last line that it writes; a try is a client that leaves at once."""
        command = ["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{self.port}"]
        return run(command)[0] == 0

    def has_no_client(self):
        log = self.log()
        return log.count("Accepted client connection") == log.count("Client connection closed")


@contextlib.contextmanager
def running(tool, device):
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        log_path = os.path.join(folder, "log")
        with open(log_path, "wb") as log:
            process = subprocess.Popen(
                [tool, "-d", device, "-t", "2", "-H", "127.0.0.1", "-p", str(port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # llama.cpp sends to a killed client with SIGPIPE on, which ends its server on every device: Python ignores
                # the signal, and the server inherits that
                restore_signals=False,
            )
        server = RpcServer(process, port, log_path)
        try:
            server.wait_until(server.listens, f"the server listens with the device {device}")
            yield server
        finally:
            process.kill()
            process.wait()


def client(bin_dir, server, n):
    """The command of a client without the plugin, with all layers on the server."""
    tool = os.path.join(bin_dir, "llama-completion")
    command = ["env", "-u", "GGML_BACKEND_PATH", tool, "-m", MODEL, "--rpc", f"127.0.0.1:{server.port}"]
    command += ["--device", "RPC0", "-ngl", 99, "-fa", "on", "-c", CELLS, "-t", 2, "-n", n, "--temp", 0, "--ignore-eos"]
    return [str(part) for part in [*command, "-no-cnv", "-v", "-p", PROMPT]]


def complete(bin_dir, server):
    status, text, log = run(client(bin_dir, server, 32), timeout=120)
    check(status == 0 and len(text) > len(PROMPT) + 60, "a client writes a text", status, text, log, server.log())
    check(server.alive(), "the server is there after it", server.process.poll(), server.log())
    return text, log


def kill_client(bin_dir, server):
    """A client that is killed while it generates."""
    process = subprocess.Popen(
        client(bin_dir, server, 400), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    text = b""
    while len(text) < len(PROMPT) + 20 and (part := os.read(process.stdout.fileno(), 64)):
        text += part
    process.send_signal(signal.SIGKILL)
    check(process.wait() == -signal.SIGKILL, "a client is killed while it generates", text)
    process.stdout.close()
    server.wait_until(server.has_no_client, "the server sees that it is gone")


def main():
    bin_dir = sys.argv[1]
    tool = os.path.join(bin_dir, "ggml-rpc-server")
    need(tool, os.path.join(bin_dir, "llama-completion"), MODEL)
    with running(tool, "CPU") as server:
        cpu, _ = complete(bin_dir, server)
        check(NOT_PACKED not in server.log(), "nothing is said of the CPU device's cache", server.log())
    with running(tool, "TurboQuant") as server:
        text, log = complete(bin_dir, server)
        check(text == cpu, "the text is that of the CPU device", text, cpu)
        sizes = [float(size) for size in KV_BUFFER.findall(log)]
        check(sizes and abs(max(sizes) - F16_MIB) < 0.01, f"the KV buffer has f16's {F16_MIB:.2f} MiB", sizes, log)
        check(server.log().count(NOT_PACKED) == 1, "that the cache is not packed is said", server.log())
        text, _ = complete(bin_dir, server)
        check(text == cpu, "a second client's text is the same", text, cpu)
        for _ in range(3):
            kill_client(bin_dir, server)
        text, _ = complete(bin_dir, server)
        check(text == cpu, "a client after those that were killed gets the same text", text, cpu)
        check(server.log().count(NOT_PACKED) == 1, "it is said once a server", server.log())


main()
