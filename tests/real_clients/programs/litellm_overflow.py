"""A prompt that does not fit: LiteLLM's own error, by which its fallbacks go on elsewhere."""

import json
import sys

import litellm

URL = sys.argv[1]
LONG = [{"role": "user", "content": "word " * 9000}]
SHORT = [{"role": "user", "content": "Hello"}]
OPENAI = {"model": "openai/scripted", "api_base": f"{URL}/v1", "api_key": "unused", "num_retries": 0}
ANTHROPIC = {"model": "anthropic/scripted", "api_base": URL, "api_key": "unused", "num_retries": 0}


def error_of(ask: object) -> str:
    try:
        ask()
    except Exception as e:
        return type(e).__name__
    return "no error"


def text(**fields: object) -> str:
    return litellm.completion(**fields).choices[0].message.content


router = litellm.Router(
    model_list=[
        {"model_name": "small", "litellm_params": OPENAI},
        {"model_name": "large", "litellm_params": {**OPENAI, "mock_response": "It fits."}},
    ],
    context_window_fallbacks=[{"small": ["large"]}],
    num_retries=0,
)
said = {
    "openai": error_of(lambda: litellm.completion(messages=LONG, **OPENAI)),
    "openai_stream": error_of(lambda: list(litellm.completion(messages=LONG, stream=True, **OPENAI))),
    "anthropic": error_of(lambda: litellm.completion(messages=LONG, **ANTHROPIC)),
    "responses": error_of(lambda: litellm.responses(input=LONG[0]["content"], **OPENAI)),
    "short": {
        "openai": text(messages=SHORT, **OPENAI),
        "anthropic": text(messages=SHORT, **ANTHROPIC),
        "fallback": router.completion("small", messages=LONG).choices[0].message.content,
    },
}
print(json.dumps(said))
