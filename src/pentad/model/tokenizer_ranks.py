"""Byte-level tokenizers out of ranked tokens: Mistral's `tekken.json` and files as tiktoken writes them."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Final

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from pentad.errors import BadModelFile
from pentad.model.tokenizer import BYTE_LETTERS, Tokenizer

_LETTERS: Final = {byte: letter for letter, byte in BYTE_LETTERS.items()}
MAX_TOKEN_BYTES: Final = 1024
TEKKEN_CONTROLS: Final = (
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
)
"""The first control tokens of files that do not list them."""


def from_ranks(
    ranks: Mapping[bytes, int],
    *,
    pattern: str,
    special: Mapping[str, int],
    offset: int = 0,
    prefix: tuple[int, ...] = (),
    size: int | None = None,
    source: str,
) -> Tokenizer:
    """The tokenizer that merges whatever neighbours make the token of the lowest rank.

    Cost: every token is cut at each of its bytes once.

    Args:
        ranks: token to rank; single bytes among them.
        pattern: a regular expression for the pieces that are merged within.
        special: control tokens by text, with their ids.
        offset: from a token's rank to its id.
        prefix: tokens before every text.
        size: rows of the embedding table.
        source: the file, for messages.

    Raises:
        BadModelFile: a token too long, or an unusable vocabulary.
    """
    longest = max(map(len, ranks), default=0)
    if not 0 < longest <= MAX_TOKEN_BYTES:
        raise BadModelFile(f"{source!r} has a token of {longest} bytes, 1 to {MAX_TOKEN_BYTES} are possible")
    spelled = {token: "".join(_LETTERS[byte] for byte in token) for token in ranks}
    pairs = []
    for token, rank in ranks.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in ranks and right in ranks:
                pairs.append((rank, ranks[left], ranks[right], spelled[left], spelled[right]))
    pairs.sort()
    try:
        backend = Backend(
            models.BPE(
                vocab={spelled[token]: rank + offset for token, rank in ranks.items()} | dict(special),
                merges=[(left, right) for *_, left, right in pairs],
                ignore_merges=True,
            )
        )
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    except Exception as error:  # the library raises plain Exception for a broken vocabulary
        raise BadModelFile(f"{source!r} has an unusable vocabulary: {error}") from error
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(text, normalized=False) for text in special])
    highest = max((max(ranks.values()) + offset, *special.values()))
    return Tokenizer(backend, coding="byte_level", prefix=prefix, size=size, highest=highest)


def from_tekken(text: str, *, size: int | None = None, source: str = "tekken.json") -> Tokenizer:
    """The tokenizer of a `tekken.json`. Raises BadModelFile when it is none we can read."""
    try:
        state: dict[str, Any] = json.loads(text)
        config = state["config"]
        controls = int(config["default_num_special_tokens"])
        count = int(config["default_vocab_size"]) - controls
        entries = state["vocab"][:count]
        ranks = {
            base64.b64decode(entry["token_bytes"], validate=True): int(entry["rank"]) for entry in entries
        }
        listed = {entry["token_str"]: int(entry["rank"]) for entry in state.get("special_tokens") or ()}
        pattern = config["pattern"]
    except (ValueError, TypeError, KeyError, binascii.Error) as error:
        raise BadModelFile(f"{source!r} is not a readable tokenizer: {error!r}") from error
    special = listed or {name: id for id, name in enumerate(TEKKEN_CONTROLS)}
    taken = set(special.values())
    special |= {f"<SPECIAL_{id}>": id for id in range(controls) if id not in taken}
    return from_ranks(
        ranks,
        pattern=pattern,
        special=dict(sorted(special.items(), key=lambda item: item[1])),
        offset=controls,
        prefix=(special["<s>"],) if "<s>" in special else (),
        size=size,
        source=source,
    )


def from_tiktoken(
    text: str, *, pattern: str, special: Mapping[str, int], size: int | None = None, source: str
) -> Tokenizer:
    """The tokenizer of a file with a token in base64 and its rank on each line. Raises BadModelFile."""
    try:
        lines = (line.split() for line in text.splitlines() if line.strip())
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in lines}
    except (ValueError, binascii.Error) as error:
        raise BadModelFile(f"{source!r} is not a readable tokenizer: {error}") from error
    return from_ranks(ranks, pattern=pattern, special=special, size=size, source=source)
