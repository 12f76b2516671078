"""python -m turboquant_cpp.mlx: mlx-lm's own programs."""

import concurrent.futures
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from openai import OpenAI

PROGRAM = [sys.executable, "-m", "turboquant_cpp.mlx"]
PROMPTS = ("What is the capital of France?", "Name three colors.", "Say hello.", "Count to five in words.")


def run(*arguments, **options):
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, timeout=240, **options)


def test_generate_and_cache_prompt(model_folder, tmp_path):
    """A prompt that is cached in a file by one process and gone on with by another."""
    file = str(tmp_path / "prompt.safetensors")
    made = run(
        "cache_prompt", "--tq-preset", "fast", "--model", model_folder, "--prompt-cache-file", file,
        "--prompt", "The capital of France is Paris. The capital of Italy is Rome.", check=False,
    )
    assert made.returncode == 0, made.stderr
    assert "30 of 30 layers packed; fast (k4v4 centered, sinks=1 window=15)" in made.stderr
    out = run(
        "generate", "--tq-preset", "fast", "--model", model_folder, "--prompt-cache-file", file, "--max-tokens", "12",
        "--prompt", "What is the capital of France?", check=False,
    )
    assert out.returncode == 0, out.stderr
    assert "Paris" in out.stdout


def test_help_and_refusals():
    help_text = run("generate", "--help").stdout
    assert "--tq-preset" in help_text and "--max-tokens" in help_text
    assert "asks for another kind of cache" in run("generate", "--kv-bits", "4").stderr
    assert "k9v9" in run("generate", "--tq-preset", "k9v9").stderr
    assert "invalid choice: 'convert'" in run("convert").stderr


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
    """Each client gets the text that mlx-lm generates with its dense cache."""
    from mlx_lm import generate

    model, tokenizer = smollm2
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(lambda p: ask(server, p), PROMPTS))
    for prompt, text in zip(PROMPTS, texts):
        tokens = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True)
        assert text == generate(model, tokenizer, tokens, max_tokens=12), prompt


def test_the_server_says_its_mode(server):
    with urllib.request.urlopen(f"{server}/v1/models", timeout=60) as answer:
        said = answer.headers["X-TurboQuant"]
    assert "30 of 30 layers packed; lossless (k8v8 centered)" in said and "fused on packed rows" in said
