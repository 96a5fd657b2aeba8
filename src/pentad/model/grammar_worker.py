"""The process in which foreign grammars are compiled first: it may be killed, the server may not.

Run as a script, with nothing of the package imported, so that it starts in a tenth of a second. Reads one
JSON object per line, `{"vocab": 3, "special": {"<s>": 1}, "grammar": "..."}`, and answers each with one line,
`{"error": "", "possible": true, "warnings": [], "cpu_s": 0.01, "bytes": 4096, "last": false}`. After the last
one it takes no further job. A job that passes its CPU time or its memory ends the process without an answer.

Arguments: CPU seconds of one job, and bytes that the process may take on top of what it has at the start.
"""

from __future__ import annotations

import ctypes
import functools
import json
import resource
import signal
import sys
import threading
import time
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

MAX_LEXER_STATES = 50_000
"""Each takes a kilobyte. What real grammars reach is hundreds."""
STACK_BYTES = 2 << 20
"""Less than the server's threads have: what fits here fits there."""
KEEP_BYTES = 16 << 20
"""A process that keeps more of past jobs gives way to a new one, which costs a tenth of a second."""
_TRIM_BYTES = 4 << 20
"""A job that took more has the C library asked to give back what is free."""


def parser_limits() -> LLParserLimits:
    """The limits that every grammar is compiled and followed under."""
    return LLParserLimits(verbose_errors=False, max_lexer_states=MAX_LEXER_STATES)


class Bytes:
    """A vocabulary of single bytes beside the given control tokens: grammars compile as with any other."""

    def __init__(self, size: int, special: dict[str, int]) -> None:
        names = {id: text.encode() for text, id in special.items()}
        free = [id for id in range(size + 257) if id not in names]
        letters = dict(zip(free, range(256), strict=False))
        self.eos_token_id = free[256]
        self.bos_token_id = None
        count = max(size, self.eos_token_id + 1)
        self.tokens = [
            bytes([letters[id]]) if id in letters else names.get(id, b"<end>" if id == free[256] else b"")
            for id in range(count)
        ]
        self.special_token_ids = sorted({*names, self.eos_token_id})
        self._ids = {byte: id for id, byte in letters.items()}

    def __call__(self, text: str | bytes) -> list[int]:
        return [self._ids[byte] for byte in (text.encode() if isinstance(text, str) else text)]


@functools.lru_cache(maxsize=4)
def tokenizer(size: int, special: str) -> LLTokenizer:
    """The byte vocabulary of that size; `special` is its control tokens as JSON."""
    vocabulary = Bytes(size, json.loads(special))
    return LLTokenizer(
        TokenizerWrapper(vocabulary),
        n_vocab=len(vocabulary.tokens),
        eos_token=[vocabulary.eos_token_id],
        slices=[],
    )


def verdict(size: int, special: str, grammar: str) -> dict[str, Any]:
    """What compiling the grammar says and costs."""
    ready = tokenizer(size, special)
    before_bytes, started_s = _resident_bytes(), time.process_time()
    # LLMatcher never raises; it keeps its errors.
    matcher = LLMatcher(ready, grammar, log_level=0, limits=parser_limits())
    possible = not matcher.is_error() and any(matcher.compute_bitmask())
    return {
        "error": matcher.get_error() if matcher.is_error() else "",
        "possible": possible and not matcher.is_error(),
        "warnings": list(matcher.get_grammar_warnings()),
        "cpu_s": time.process_time() - started_s,
        "bytes": max(0, _resident_bytes() - before_bytes),
    }


def _resident_bytes() -> int:
    return _pages()[1] * resource.getpagesize()


def _pages() -> tuple[int, int]:
    """Mapped and resident; nothing where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            mapped, resident = file.read().split()[:2]
    except OSError:
        return 0, 0
    return int(mapped), int(resident)


def serve(cpu_s: float, memory_bytes: int) -> None:
    """Answers jobs until standard input ends or the process has grown too large to keep."""
    tokenizer(0, "{}")
    limit = _pages()[0] * resource.getpagesize() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    kept_bytes = 0
    for line in sys.stdin.buffer:
        job = json.loads(line)
        tokenizer(job["vocab"], json.dumps(job["special"]))
        before_bytes = _resident_bytes()
        signal.setitimer(signal.ITIMER_PROF, cpu_s)  # its signal ends the process
        answer = verdict(job["vocab"], json.dumps(job["special"]), job["grammar"])
        signal.setitimer(signal.ITIMER_PROF, 0)
        if trim is not None and _resident_bytes() - before_bytes > _TRIM_BYTES:
            trim(0)
        kept_bytes += _resident_bytes() - before_bytes
        last = kept_bytes > KEEP_BYTES
        sys.stdout.buffer.write(json.dumps({**answer, "last": last}).encode() + b"\n")
        sys.stdout.buffer.flush()
        if last:
            return


def main() -> None:
    """Serves on a thread, since only a thread's stack can be made small."""
    threading.stack_size(STACK_BYTES)
    worker = threading.Thread(target=serve, args=(float(sys.argv[1]), int(sys.argv[2])))
    worker.start()
    worker.join()


if __name__ == "__main__":
    main()
