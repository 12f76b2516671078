"""What a user's program does with the openai package (openai_client.py PORT): prints what it saw as JSON.

It runs in an environment of its own, which has the package; see scripts/lib/fetch.
"""
import concurrent.futures
import json
import sys

import openai

QUESTIONS = [
    "Name the capital of France.",
    "Write one sentence about a lighthouse. Then write another one about the sea, the wind and the keeper's dog.",
    "What is 2 + 2?",
    "List three colours. " * 12,
]
SCHEMA = {
    "type": "object",
    "properties": {"order": {"type": "string", "pattern": "^[A-Z]{2}[0-9]{4}$"}, "pieces": {"type": "integer"}},
    "required": ["order", "pieces"],
    "additionalProperties": False,
}
ORDER = "Copy the order number and the number of pieces from this message as JSON: order QX4817, 362 pieces, as agreed."


def ask(client, question, **options):
    """(text, chunks, why it ended) of a streamed greedy answer."""
    stream = client.chat.completions.create(
        model="any",
        messages=[{"role": "user", "content": question}],
        temperature=0,
        max_tokens=32,
        seed=1,
        stream=True,
        **options,
    )
    text, chunks, ended = "", 0, None
    for chunk in stream:
        chunks += 1
        for choice in chunk.choices:
            text += choice.delta.content or ""
            ended = choice.finish_reason or ended
    return text, chunks, ended


def hang_up(client):
    """A stream that is closed after its first words."""
    stream = client.chat.completions.create(
        model="any", messages=[{"role": "user", "content": QUESTIONS[1]}], max_tokens=300, stream=True
    )
    for seen, _ in enumerate(stream):
        if seen == 3:
            break
    stream.close()


def main():
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{sys.argv[1]}/v1", api_key="none", timeout=120, max_retries=0)
    schema = {"type": "json_schema", "json_schema": {"name": "order", "strict": True, "schema": SCHEMA}}
    alone = [ask(client, question) for question in QUESTIONS]
    with concurrent.futures.ThreadPoolExecutor(len(QUESTIONS)) as pool:
        together = list(pool.map(lambda question: ask(client, question), QUESTIONS))
    hang_up(client)
    copied = ask(client, ORDER, response_format=schema)
    again = ask(client, QUESTIONS[0])
    print(json.dumps({"alone": alone, "together": together, "copied": copied, "again": again}))


main()
