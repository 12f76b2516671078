#!/usr/bin/env python3
"""llama-server on the TurboQuant device (server_test.py BIN_DIR): slots side by side, saved slots, context shift."""
import concurrent.futures
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

from support.tools import DEVICE, MODEL, check, need

PROMPTS = [
    "The lighthouse keeper wrote a line in his log every evening. One winter a ship",
    "A recipe for bread: take flour, water, salt and yeast. First you",
    "The capital of Norway is Oslo. The capital of Sweden is",
    "In mathematics, a prime number is a number that",
]


def request(port, path, body=None, timeout=120):
    data = None if body is None else json.dumps(body).encode()
    call = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(call, timeout=timeout) as answer:
        return json.load(answer)


def complete(port, prompt, n=48, slot=-1, **options):
    body = {"prompt": prompt, "n_predict": n, "temperature": 0, "top_k": 1, "seed": 1, "id_slot": slot, **options}
    return request(port, "/completion", body)


def wait_until_ready(server, port, log_path):
    for _ in range(120):
        if server.poll() is None:
            with contextlib.suppress(OSError):
                request(port, "/health", timeout=5)
                return
            time.sleep(0.5)
    with open(log_path, encoding="utf-8", errors="replace") as log:
        check(False, "llama-server starts", log.read())


@contextlib.contextmanager
def running(tool, *options):
    """A server on a free port of the loopback interface; yields the port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        log_path = os.path.join(folder, "log")
        command = [tool, *DEVICE, "-fa", "on", "-t", "2", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--slot-save-path", folder + "/", *options]
        with open(log_path, "wb") as log:
            server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_until_ready(server, port, log_path)
            yield port
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def slots_side_by_side(port):
    alone = [complete(port, prompt, slot=i, cache_prompt=False)["content"] for i, prompt in enumerate(PROMPTS)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(complete, port, prompt, slot=i, cache_prompt=False) for i, prompt in enumerate(PROMPTS)]
        together = [job.result()["content"] for job in jobs]
    check(all(alone), "every request is answered", alone)
    check(together == alone, "four requests at a time give the text of one at a time", alone, together)


def saved_slot(port):
    story = PROMPTS[0] + complete(port, PROMPTS[0], slot=0, cache_prompt=True)["content"]
    saved = request(port, "/slots/0?action=save", {"filename": "slot"})
    expected = complete(port, story, slot=0, cache_prompt=True)["content"]
    complete(port, PROMPTS[1], slot=0, cache_prompt=True)
    restored = request(port, "/slots/0?action=restore", {"filename": "slot"})
    check(saved["n_saved"] == restored["n_restored"] > 48, "a slot is saved and restored", saved, restored)
    after = complete(port, story, slot=0, cache_prompt=True)
    check(after["tokens_cached"] > 48 and after["timings"]["prompt_n"] < 8, "the restored tokens are not computed again", after)
    check(after["content"] == expected, "a restored slot continues as before", expected, after["content"])


def context_shift(port):
    answer = complete(port, PROMPTS[0], n=400, ignore_eos=True)
    check(answer["tokens_predicted"] == 400, "generation goes on past the end of the context", answer)


def main():
    tool = os.path.join(sys.argv[1], "llama-server")
    need(tool, MODEL)
    with running(tool, "-np", "4", "-c", "2048", "--no-kv-unified") as port:
        slots_side_by_side(port)
        saved_slot(port)
    with running(tool, "-np", "1", "-c", "256", "--context-shift") as port:
        context_shift(port)


main()
