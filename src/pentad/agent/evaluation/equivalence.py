"""Whether two mathematical answers are the same: by symbols, in a process of its own with a time limit.

Run as a program it reads two answers as JSON from standard input and says `true` or `false`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import sys
from decimal import Decimal, InvalidOperation

from pentad.errors import MissingExtra

TIMEOUT_S = 60.0
_LONGEST = 500
"""Characters of an answer that are looked at; longer ones are no answers."""


def require_equivalence() -> None:
    """Raises MissingExtra with the command that installs the library."""
    if importlib.util.find_spec("math_verify") is None:
        raise MissingExtra(
            "mathematical answers are compared by math-verify, which is not installed",
            hint="pip install 'pentad[eval]'",
        )


async def equivalent(gold: str, answer: str) -> bool:
    """Whether both say the same.

    Equal texts and equal numbers are found at once; anything else is parsed as LaTeX and compared by sympy,
    in a process of its own that is killed after `TIMEOUT_S`: an answer may be any expression, also one that
    takes for ever. Then they are not the same.

    Source: math-verify (Hugging Face), on sympy and latex2sympy2_extended.
    """
    if plain(gold) == plain(answer):
        return True
    first, second = number(gold), number(answer)
    if first is not None and second is not None:
        return first == second
    if max(len(gold), len(answer)) > _LONGEST or not answer.strip():
        return False
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(TIMEOUT_S):
            out, _ = await process.communicate(json.dumps([gold, answer]).encode())
    except TimeoutError:
        return False
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return out.strip() == b"true"


def boxed(text: str) -> str | None:
    """What stands in the last `\\boxed{}` of an answer, else behind the last `####`; None for neither."""
    start = text.rfind("\\boxed{")
    if start < 0:
        marked = text.rpartition("####")
        return (marked[2].strip().splitlines() or [""])[0] if marked[1] else None
    depth, begin = 0, start + len("\\boxed{")
    for place in range(begin - 1, len(text)):
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return text[begin:place].strip()
    return None


def plain(text: str) -> str:
    """Without what only shapes the page."""
    text = text.strip().strip("$").replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    text = re.sub(r"\\(left|right|!|,|;|:| )", "", text)
    return re.sub(r"\s+", "", text).rstrip(".")


def number(text: str) -> Decimal | None:
    """The number that a text is; None for anything else."""
    try:
        found = Decimal(re.sub(r"(?<=\d),(?=\d{3}\b)", "", plain(text)))
    except InvalidOperation:
        return None
    return found if found.is_finite() else None


def verified(gold: str, answer: str) -> bool:
    """Whether both parse to the same; takes as long as it takes. Imports sympy."""
    from math_verify import parse, verify

    def read(text: str) -> list[object]:
        return list(parse(f"\\boxed{{{text}}}", parsing_timeout=None))

    return bool(verify(read(gold), read(answer), timeout_seconds=None))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(verified(*json.loads(sys.stdin.read()))))
