"""Asks /livez all the time, as a program of its own: python tests/livez_client.py URL

Until its input ends; then it prints how often it asked and the longest time, as JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time

import httpx2

PAUSE_S = 0.02


def main(url: str) -> None:
    """Asks until standard input ends."""
    ended = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    worst_s, asked = 0.0, 0
    with httpx2.Client(base_url=url, timeout=60) as client:
        while not ended.wait(PAUSE_S):
            began = time.perf_counter()
            assert client.get("/livez").status_code == 200
            worst_s = max(worst_s, time.perf_counter() - began)
            asked += 1
    print(json.dumps({"worst_s": worst_s, "asked": asked}))


if __name__ == "__main__":
    main(*sys.argv[1:])
