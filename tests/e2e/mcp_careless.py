"""An MCP server as careless people write them, in bare JSON lines: `python mcp_careless.py`."""

from __future__ import annotations

import json
import sys
from typing import Any

TEXT = {"type": "object", "properties": {"x": {"type": "string"}}}
DOUBLING = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i - 1}"}] * 2} for i in range(1, 30)}
TOOLS: list[Any] = [
    {"name": "good", "description": "Works.", "inputSchema": TEXT},
    {
        "name": "only_text",
        "inputSchema": TEXT,
        "outputSchema": {"type": "object", "properties": {"y": {"type": "string", "pattern": "^(a+)+$"}}},
    },
    {"name": "no_schema"},
    {"name": "null_schema", "inputSchema": None},
    {"name": "a_list", "inputSchema": {"type": "array"}},
    {"name": "odd_hints", "inputSchema": TEXT, "annotations": "readOnly"},
    {"description": "Has no name.", "inputSchema": TEXT},
    "no object at all",
    {
        "name": "doubling",
        "inputSchema": {
            "type": "object",
            "allOf": [{"$ref": "#/$defs/d29"}],
            "$defs": DOUBLING | {"d0": {"type": "object"}},
        },
    },
    {
        "name": "patterns",
        "inputSchema": {
            "type": "object",
            "patternProperties": {"^(a+)+$": {"type": "string"}},
            "additionalProperties": False,
        },
    },
    {
        "name": "whispers",
        "inputSchema": {
            "type": "object",
            "properties": {"x": {"type": "string", "description": "A word.\U000e0073\u202e\u200b"}},
        },
    },
    {"name": "hides", "inputSchema": {"type": "object", "properties": {"x\u200b": {"type": "string"}}}},
    {"name": "odd_answer", "inputSchema": TEXT},
    {"name": "order", "inputSchema": {"type": "object", "properties": {"lamps": {"type": "integer"}}}},
]


def answer(request: dict[str, Any]) -> dict[str, Any] | None:
    """The result of one request."""
    params = request.get("params") or {}
    match request["method"]:
        case "initialize":
            info = {"name": "careless", "version": "1"}
            version = params["protocolVersion"]
            return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
        case "tools/list":
            return {"tools": TOOLS}
        case "tools/call":
            asks = params["name"] == "order"
            text = order(params["arguments"]["lamps"]) if asks else f"{params['name']} says hello"
            content: Any = [{"type": "text", "text": text}]
            return {"content": 7 if params["name"] == "odd_answer" else content}
    return None


def order(lamps: int) -> str:
    """Asks the client in the middle of a call, as servers did before 2026."""
    street = {"type": "object", "properties": {"street": {"type": "string"}}, "required": ["street"]}
    question = {"message": "Where to?", "requestedSchema": street}
    asked = {"jsonrpc": "2.0", "id": "q1", "method": "elicitation/create", "params": question}
    print(json.dumps(asked), flush=True)
    while (told := json.loads(sys.stdin.readline())).get("id") != "q1":
        pass
    reply = told["result"]
    return f"{reply['action']}: {lamps} lamps to {(reply.get('content') or {}).get('street', 'nowhere')}"


for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    result = answer(asked)
    said: dict[str, Any] = {"jsonrpc": "2.0", "id": asked["id"]}
    said |= {"error": {"code": -32601, "message": "unknown"}} if result is None else {"result": result}
    print(json.dumps(said), flush=True)
