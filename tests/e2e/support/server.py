"""A llama-server for the tests, on the TurboQuant device or with llama.cpp's own f16 cache, and raw HTTP requests to it."""
import concurrent.futures
import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import tempfile
import time

from support.tools import DEVICE, MODEL, check

# Where the KV cache is: every scenario runs with both, so that what f16 does is the measure.
F16 = ["-m", MODEL, "--device", "none"]
TURBOQUANT = DEVICE

PROMPTS = [
    "The lighthouse keeper wrote a line in his log every evening. One winter a ship",
    "A recipe for bread: take flour, water, salt and yeast. First you",
    "The capital of Norway is Oslo. The capital of Sweden is",
    "In mathematics, a prime number is a number that",
]


class Server:
    def __init__(self, process, port, log_path):
        self.process, self.port, self.log_path = process, port, log_path

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def connect(self, timeout=120):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def request(self, path, body=None, timeout=120):
        """(HTTP status, parsed answer)."""
        with contextlib.closing(self.connect(timeout)) as connection:
            data = None if body is None else json.dumps(body)
            connection.request("GET" if body is None else "POST", path, data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")

    def complete(self, prompt, n=32, slot=-1, **options):
        """The answer of a greedy completion; answers that are errors have no "content"."""
        body = {"prompt": prompt, "n_predict": n, "temperature": 0, "top_k": 1, "seed": 1, "id_slot": slot, **options}
        return self.request("/completion", body)[1]

    def complete_all(self, prompts, **options):
        """Answers of requests that run at the same time."""
        with concurrent.futures.ThreadPoolExecutor(len(prompts)) as pool:
            return list(pool.map(lambda prompt: self.complete(prompt, **options), prompts))

    def hang_up(self, prompt, after=1):
        """Asks for a stream and closes the connection after some of its events."""
        with contextlib.closing(self.connect()) as connection:
            body = {"prompt": prompt, "n_predict": 400, "stream": True, "ignore_eos": True}
            connection.request("POST", "/completion", json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            seen = 0
            while seen < after:
                line = answer.readline()
                if not line:
                    break
                seen += line.startswith(b"data:")
            return seen

    def metric(self, pattern):
        """The last number of the log that a pattern with one group finds."""
        found = re.findall(pattern, self.log())
        return float(found[-1]) if found else None

    def wait_until_ready(self):
        for _ in range(240):
            if self.process.poll() is None:
                with contextlib.suppress(OSError, ValueError):
                    if self.request("/health", timeout=5)[0] == 200:
                        return
            time.sleep(0.25)
        check(False, "llama-server starts", self.log())

    def alive(self):
        return self.process.poll() is None and self.request("/health", timeout=30)[0] == 200


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running(tool, where, *options, preset="fast"):
    """A server on a free port of the loopback interface."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        log_path = os.path.join(folder, "log")
        command = [tool, *where, "-fa", "on", "-t", "2", "--host", "127.0.0.1", "--port", port]
        command += ["--slot-save-path", folder + "/", "--no-warmup", *options]
        with open(log_path, "wb") as log:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "TURBOQUANT_KV": preset},
            )
        server = Server(process, port, log_path)
        try:
            server.wait_until_ready()
            yield server
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def both(tool, scenario, *options, presets=("fast",)):
    """{name: what the scenario returns} with an f16 cache and with presets on the device."""
    runs = [("f16", F16, "fast"), *((preset, TURBOQUANT, preset) for preset in presets)]
    results = {}
    for name, where, preset in runs:
        with running(tool, where, *options, preset=preset) as server:
            results[name] = scenario(server)
            check(server.alive(), f"{name}: the server still serves", server.log())
    return results
