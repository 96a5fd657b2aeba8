"""A typed answer in the three ways of with_structured_output, and streamed."""

import json
import sys

from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class Sum(BaseModel):
    """A sum."""

    total: int
    words: list[str]


model = ChatOpenAI(base_url=f"{sys.argv[1]}/v1", api_key="unused", model="scripted", max_retries=0)
ask = "What is one and two? Answer in JSON with total and words."
said = {}
for method in ("json_mode", "json_schema", "function_calling"):
    said[method] = model.with_structured_output(Sum, method=method).invoke(ask).model_dump()
*_, last = model.with_structured_output(Sum, method="json_mode").stream(ask)
said["streamed"] = last.model_dump()
print(json.dumps(said))
