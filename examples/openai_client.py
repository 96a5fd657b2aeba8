"""Talk to a running Pentad with the stock OpenAI client, and ask where the time went.

make serve                      # in one terminal
python examples/openai_client.py
"""

from __future__ import annotations

import sys

from openai import OpenAI


def main(base_url: str = "http://127.0.0.1:8000/v1") -> None:
    client = OpenAI(base_url=base_url, api_key="unused")
    model = client.models.list().data[0].id
    messages = [{"role": "user", "content": "Name three colours of the rainbow."}]

    print("streamed: ", end="")
    stream = client.chat.completions.create(model=model, messages=messages, max_tokens=32, stream=True)
    for chunk in stream:
        if chunk.choices:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()

    # One object carries the objective and asks for the records of every layer.
    answer = client.chat.completions.create(
        model=model,
        messages=messages,
        max_tokens=32,
        extra_body={"pentad": {"slo": {"ttft_s": 1.0}, "explain": True}},
    )
    for layer, seconds in answer.pentad["layers_s"].items():
        print(f"{layer:12} {seconds * 1000:8.1f} ms")


if __name__ == "__main__":
    main(*sys.argv[1:])
