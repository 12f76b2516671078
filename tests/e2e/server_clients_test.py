#!/usr/bin/env python3
"""Clients of llama-server on the TurboQuant device and with f16 (server_clients_test.py BIN_DIR CLIENT_PYTHON).

The openai package with streams, four at a time; clients that hang up; a unified cache that is exhausted.
"""
import json
import os
import re
import sys
import time

from support.server import PROMPTS, both
from support.tools import MODEL, check, need, run

CLIENT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "support", "openai_client.py")


def openai_client(server):
    status, out, log = run([sys.argv[2], CLIENT, server.port], timeout=200)
    check(status == 0, "the openai client runs", out, log, server.log())
    return json.loads(out)


def openai_clients(tool):
    """Chats at a time are the chats one by one where each slot has a cache of its own."""
    for unified in ("--no-kv-unified", "--kv-unified"):
        results = both(tool, openai_client, "-np", 4, "-c", 2048, "--cache-ram", 0, unified)
        wanted = results["f16"]
        for name, result in results.items():
            what = f"{name}, {unified}"
            answers = result["alone"] + result["together"] + [result["again"]]
            check(all(text and chunks > 2 and ended for text, chunks, ended in answers), f"{what}: every stream is whole", result)
            same = sum(a[0] == b[0] for a, b in zip(result["alone"], result["together"]))
            # Cells of a unified cache lie elsewhere beside neighbours, and texts may move: they must only be there.
            least = 4 if unified == "--no-kv-unified" else 0
            check(same >= least, f"{what}: {same} of 4 texts are those of the chat alone", result)
            copied = json.loads(result["copied"][0])
            fits = re.fullmatch("[A-Z]{2}[0-9]{4}", copied["order"]) and isinstance(copied["pieces"], int)
            check(fits, f"{what}: the answer has the schema", copied)
            check(copied == json.loads(wanted["copied"][0]), f"{what}: number and string are copied as with f16", copied)
            again = unified == "--kv-unified" or result["again"][0] == result["alone"][0][0]
            check(again, f"{what}: after a client that hung up, an answer is what it was", result)


def hang_ups(server):
    before = server.complete(PROMPTS[0], cache_prompt=False)["content"]
    seen = [server.hang_up(prompt, after) for after in (1, 3) for prompt in PROMPTS]
    for _ in range(60):  # the server notices a closed connection with its next token
        if not any(slot["is_processing"] for slot in server.request("/slots")[1]):
            break
        time.sleep(0.5)
    idle = not any(slot["is_processing"] for slot in server.request("/slots")[1])
    return {"seen": seen, "idle": idle, "before": before, "after": server.complete(PROMPTS[0], cache_prompt=False)["content"]}


def clients_that_hang_up(tool):
    for name, result in both(tool, hang_ups, "-np", 2, "-c", 1024, "--no-kv-unified", "--slots").items():
        check(all(result["seen"]) and result["idle"], f"{name}: slots of clients that hung up are free again", result)
        check(result["before"] == result["after"] != "", f"{name}: the text afterwards is the text before", result)


def exhausted(server):
    """Four requests that together want more cells than there are, then one that fits."""
    prompts = [prompt + " " + " ".join(PROMPTS) for prompt in PROMPTS]
    answers = server.complete_all(prompts, n=200, ignore_eos=True, cache_prompt=False)
    after = server.complete(PROMPTS[2], n=16, cache_prompt=False)
    return {"whole": sum(answer.get("tokens_predicted") == 200 for answer in answers), "answers": answers, "after": after}


def unified_cache_exhausted(tool):
    options = ["-np", 4, "-c", 256, "--kv-unified", "--cache-ram", 0]
    results = both(tool, exhausted, *options, presets=("fast", "k4v4"))
    for name, result in results.items():
        check(result["whole"] < 4, f"{name}: the cache was exhausted", result)
        check(result["after"].get("tokens_predicted") == 16, f"{name}: the server goes on serving", result)


def main():
    tool = os.path.join(sys.argv[1], "llama-server")
    need(tool, MODEL, sys.argv[2])
    openai_clients(tool)
    clients_that_hang_up(tool)
    unified_cache_exhausted(tool)


main()
