"""python -m turboquant_cpp.mlx: mlx-lm's own programs."""

import concurrent.futures
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from mlx_lm import generate
from openai import OpenAI

import turboquant_cpp.mlx as tq

PROGRAM = [sys.executable, "-m", "turboquant_cpp.mlx"]
# After the last one the two likeliest tokens of the dense cache are 0.04 apart, less than 8-bit codes move them.
PROMPTS = ("What is the capital of France?", "Say hello.", "Count to five in words.", "Name three colors.")


def run(program, *arguments):
    return subprocess.run([*program, *arguments], capture_output=True, text=True, timeout=240, check=False)


def test_generate_and_cache_prompt(loaded, model_folder, tmp_path):
    """A prompt that one process caches in a file and another goes on with gives the text of the whole in one."""
    file, before, query = str(tmp_path / "prompt.safetensors"), "Hello, I am Anna.\n", "What is the capital of France?"
    made = run(PROGRAM, "cache_prompt", "--model", model_folder, "--prompt-cache-file", file, "--prompt", before)
    assert made.returncode == 0, made.stderr
    assert "30 of 30 layers packed; fast (k4v4 centered, sinks=1 window=15)" in made.stderr
    out = run(PROGRAM, "generate", "--prompt-cache-file", file, "--max-tokens", "8", "--prompt", query)
    assert out.returncode == 0, out.stderr

    _, tokenizer = loaded
    whole = run(PROGRAM, "generate", "--model", model_folder, "--max-tokens", "8", "--ignore-chat-template",
                "--prompt", whole_prompt(tokenizer, before, query))
    assert out.stdout.split("==========")[1] == whole.stdout.split("==========")[1]


def whole_prompt(tokenizer, before, query):
    """What cache_prompt has stored, and what generate adds to it."""
    def message(text, **options):
        return tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False, **options)

    asked = message(query, add_generation_prompt=True)
    return message(before, continue_final_message=True) + asked[asked.index(query) :]


def test_help_and_refusals():
    help_text = run(PROGRAM, "generate", "--help").stdout
    assert "--tq-preset" in help_text and "--max-tokens" in help_text
    assert "asks for another kind of cache" in run(PROGRAM, "generate", "--kv-bits", "4").stderr
    assert "k9v9" in run(PROGRAM, "generate", "--tq-preset", "k9v9").stderr
    assert "invalid choice: 'convert'" in run(PROGRAM, "convert").stderr


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def server(model_folder, tmp_path_factory):
    port = free_port()
    log = tmp_path_factory.mktemp("server") / "log"
    with open(log, "w", encoding="utf-8") as out:
        process = subprocess.Popen(
            [*PROGRAM, "server", "--tq-preset", "lossless", "--model", model_folder, "--port", str(port), "--temp", "0"],
            stdout=out, stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def ask(url, prompt, n=12):
    client = OpenAI(base_url=f"{url}/v1", api_key="none", timeout=200)
    stream = client.chat.completions.create(
        model="default_model", messages=[{"role": "user", "content": prompt}], stream=True, max_tokens=n, temperature=0
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def test_four_streams_at_once(server, smollm2):
    """Each client gets the text of its prompt alone, and that is mlx-lm's with its dense cache."""
    model, tokenizer = smollm2

    def alone(prompt):
        tokens = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True)
        return generate(model, tokenizer, tokens, max_tokens=12)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(lambda p: ask(server, p), PROMPTS))
    assert texts[:3] == [alone(p) for p in PROMPTS[:3]]
    tq.enable(model, "lossless")
    assert texts == [alone(p) for p in PROMPTS]


def test_the_server_says_its_mode(server):
    with urllib.request.urlopen(f"{server}/v1/models", timeout=60) as answer:
        said = answer.headers["X-TurboQuant"]
    assert "30 of 30 layers packed; lossless (k8v8 centered)" in said and "fused on packed rows" in said
