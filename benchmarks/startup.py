"""What a person waits for, and what a server takes: --help, readiness, first answer, peak memory.

    python benchmarks/startup.py [--repeats N]

Starts the real program on the local store. Prints a table and one JSON line. The figures to keep:
`pentad --help` under 300 ms, `pentad serve` ready in under 5 s with the models in the store, a first
answer of the second start within 2 s, peak memory under 450 MB.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import threading
import time
from typing import Any

import httpx2
import psutil

PENTAD = pathlib.Path(sys.executable).parent / "pentad"
CHATS = 8
MB = 10**6


def help_ms(repeats: int) -> list[float]:
    """Wall time of `pentad --help`."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        subprocess.run([PENTAD, "--help"], stdout=subprocess.DEVNULL, check=True)
        times.append(1000 * (time.perf_counter() - began))
    return times


def serve_once() -> dict[str, float]:
    """Seconds to readiness and to a first answer, and memory while eight chats run at once."""
    began = time.perf_counter()
    process = subprocess.Popen([PENTAD, "serve", "--port", "0"], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        url = next(m[1] for line in process.stderr if (m := re.search(r"API +(http://\S+)/v1", line)))
        ready_s = time.perf_counter() - began
        chat(url, 1)
        first_s = time.perf_counter() - began
        idle = held(process.pid)
        threads = [threading.Thread(target=chat, args=(url, 128)) for _ in range(CHATS)]
        for thread in threads:
            thread.start()
        peak = 0
        while any(thread.is_alive() for thread in threads):
            peak = max(peak, held(process.pid))
            time.sleep(0.05)
        return {"ready_s": ready_s, "first_s": first_s, "idle_mb": idle / MB, "peak_mb": peak / MB}
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()


def held(pid: int) -> int:
    """Bytes of memory of a server and its engines' processes; pages that they share count once."""
    whole = 0
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        found = process.memory_full_info()
        whole += getattr(found, "pss", found.rss)
    return whole


def chat(url: str, tokens: int) -> None:
    """One chat of exactly so many tokens with the default model."""
    model = httpx2.get(f"{url}/v1/models", timeout=60).json()["data"][0]["id"]
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": "Tell me about the sea."}],
        "max_tokens": tokens,
        "ignore_eos": True,
    }
    httpx2.post(f"{url}/v1/chat/completions", json=body, timeout=600).raise_for_status()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5, help="how often each is measured")
    repeats = parser.parse_args().repeats
    serve_once()  # packs the weights where no start before has
    served = [serve_once() for _ in range(repeats)]
    figures = {"help_ms": help_ms(max(repeats, 5))} | {key: [run[key] for run in served] for key in served[0]}
    print(f"{'figure':<10} {'least':>9} {'median':>9} {'most':>9}")
    for name, values in figures.items():
        print(f"{name:<10} {min(values):>9.2f} {statistics.median(values):>9.2f} {max(values):>9.2f}")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    print(
        json.dumps(
            {
                "benchmark": "startup",
                "commit": commit.stdout.strip(),
                "machine": f"{platform.machine()}, {psutil.cpu_count()} cores, "
                f"Python {platform.python_version()}",
                "ceiling": "help 300 ms, ready 5 s, first 2 s, peak 450 MB",
                "results": {name: round(statistics.median(v), 2) for name, v in figures.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
