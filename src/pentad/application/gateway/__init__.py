"""The gateway: HTTP in, one Request down, one stream of deltas up, HTTP out."""

from pentad.application.gateway.app import create_app
from pentad.application.gateway.server import serve
from pentad.application.gateway.settings import ApiKey, GatewaySettings

__all__ = ["ApiKey", "GatewaySettings", "create_app", "serve"]
