"""A request of a load on the wire: while an answer comes, only the times of its bytes are noted."""

from __future__ import annotations

import bisect
import json
import re
import selectors
import socket
from typing import Any, Final

_CONTENT: Final = re.compile(rb'"content":\s*"(?!")')
_TEXT: Final = re.compile(rb'"text":\s*"')
"""Of completions, whose pieces count without text as well: a token may be a part of a character."""
_COMPLETION: Final = re.compile(rb'"completion_tokens":\s*(\d+)')
_PROMPT: Final = re.compile(rb'"prompt_tokens":\s*(\d+)')
_CACHED: Final = re.compile(rb'"cached_tokens":\s*(\d+)')
_CHUNK: Final = 1 << 16
_ENDS: Final = (b"data: [DONE]\n\n", b"data: [DONE]\n\n\r\n0\r\n\r\n")


class Exchange:
    """One request, sent as the socket takes it, and what has come of it.

    Args:
        plan: `host`, `port`, `path` and `headers` of the server.
        body: fields of the request.
        sent_s: now, on the load's clock.
    """

    __slots__ = ("_arrivals", "_body", "_out", "_received", "ended_s", "sent_s", "sock")

    def __init__(self, plan: dict[str, Any], body: dict[str, Any], sent_s: float) -> None:
        data = json.dumps(body, separators=(",", ":")).encode()
        lines = [f"POST {plan['path']} HTTP/1.1", f"Host: {plan['host']}:{plan['port']}", "Connection: close"]
        lines += ["Content-Type: application/json", f"Content-Length: {len(data)}", *plan["headers"], "", ""]
        self.sock = socket.create_connection((plan["host"], plan["port"]), timeout=30)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.sent_s = sent_s
        self.ended_s = sent_s
        self._out = memoryview("\r\n".join(lines).encode() + data)
        self._received = bytearray()
        self._arrivals: list[tuple[int, float]] = []
        """How many bytes had arrived when, once per read."""
        self._body: bytes | None = None

    def serve(
        self, selector: selectors.BaseSelector, key: selectors.SelectorKey, mask: int, now_s: float
    ) -> bool:
        """Sends and receives what can be without waiting; whether the answer is complete.

        The socket is then closed, and the selector does not watch it any more.
        """
        if mask & selectors.EVENT_WRITE:
            self._out = self._out[self.sock.send(self._out) :]
            if not self._out:
                selector.modify(self.sock, selectors.EVENT_READ, key.data)
        if not mask & selectors.EVENT_READ:
            return False
        data = self.sock.recv(_CHUNK)
        self._received += data
        self._arrivals.append((len(self._received), now_s))
        if data and not self._received.endswith(_ENDS):
            return False
        selector.unregister(self.sock)
        self.sock.close()
        self.ended_s = now_s
        return True

    def answer(self) -> dict[str, Any]:
        """Status, instants and counts of an answer that has ended; `error` where it is none."""
        received, places = body_of(bytes(self._received))
        self._body = received
        status = int(self._received[9:12] or 0) if self._received.startswith(b"HTTP/") else 0
        found = list(_CONTENT.finditer(received)) or list(_TEXT.finditer(received))
        events_s = [arrived_s(self._arrivals, places, match.end()) for match in found]
        answer = {
            "status": status,
            "sent_s": self.sent_s,
            "ended_s": self.ended_s,
            "events_s": events_s,
            "completion_tokens": _last(_COMPLETION, received),
            "prompt_tokens": _last(_PROMPT, received),
            "cached_tokens": _last(_CACHED, received),
        }
        if status != 200 or not events_s:
            answer["error"] = received[-300:].decode("utf-8", "replace")
        return answer

    @property
    def body(self) -> bytes:
        """Of the answer, put together; after `answer`."""
        return self._body or b""


def body_of(received: bytes) -> tuple[bytes, list[tuple[int, int]]]:
    """The body of an HTTP answer, and where each of its parts lay: (place in the body, in what arrived)."""
    head, _, _ = received.partition(b"\r\n\r\n")
    at = len(head) + 4
    if b"transfer-encoding: chunked" not in head.lower():
        return received[at:], [(0, at)]
    parts: list[bytes] = []
    places = [(0, at)]
    length = 0
    while (end := received.find(b"\r\n", at)) > 0:
        size = int(received[at:end].split(b";")[0] or b"0", 16)
        if size == 0:
            break
        places.append((length, end + 2))
        parts.append(received[end + 2 : end + 2 + size])
        length += size
        at = end + 2 + size + 2
    return b"".join(parts), places


def arrived_s(arrivals: list[tuple[int, float]], places: list[tuple[int, int]], at: int) -> float:
    """When the byte in front of place `at` of the body had arrived."""
    body, raw = places[bisect.bisect_right(places, at - 1, key=lambda place: place[0]) - 1]
    return arrivals[bisect.bisect_left(arrivals, raw + at - body, key=lambda arrival: arrival[0])][1]


def events_of(body: bytes) -> list[dict[str, Any]]:
    """The events of a streamed answer."""
    return [json.loads(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: {")]


def text_of(body: bytes) -> str:
    """The text of a chat's answer, put together from its events."""
    choices = (choice for event in events_of(body) for choice in event.get("choices") or ())
    return "".join(choice.get("delta", {}).get("content") or "" for choice in choices)


def _last(pattern: re.Pattern[bytes], received: bytes) -> int | None:
    found = pattern.findall(received)
    return int(found[-1]) if found else None
