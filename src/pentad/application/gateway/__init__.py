"""The gateway: HTTP in, one Request down, one stream of deltas up, HTTP out.

Its names are imported on use, so that reading the settings costs no web framework.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pentad.application.gateway.app import create_app
    from pentad.application.gateway.server import make_server, serve
    from pentad.application.gateway.settings import ApiKey, GatewaySettings

__all__ = ["ApiKey", "GatewaySettings", "create_app", "make_server", "serve"]

_MODULES = {
    "ApiKey": "settings",
    "GatewaySettings": "settings",
    "create_app": "app",
    "make_server": "server",
    "serve": "server",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
