"""Plain JSON answers."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response

_ENCODER = msgspec.json.Encoder()


def json_response(value: Any, status: int = 200) -> Response:
    """Any value that msgspec writes, as application/json."""
    return Response(_ENCODER.encode(value), status_code=status, media_type="application/json")
