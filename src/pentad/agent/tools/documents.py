"""A folder of text files as passages, found by words and by meaning."""

from __future__ import annotations

import asyncio
import os
import pathlib
import re
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pentad.agent.embedding import embed_beginnings
from pentad.agent.ports import ModelPort
from pentad.agent.tools.invocation import shown
from pentad.errors import InvalidRequest, NotFound, TooLarge
from pentad.model.relevance import shared_words
from pentad.model.terms import terms, unspaced_share

ENDINGS = (".txt", ".md", ".rst")
MAX_FILES = 2000
MAX_FILE_BYTES = 1 << 20
PASSAGE_CHARACTERS = 600
_FUSION = 60
"""The constant of reciprocal rank fusion (Cormack et al. 2009)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A piece of a document."""

    source: str
    """The file's path within the folder."""
    text: str


class Documents:
    """An index over a folder, kept in memory and made anew when a file changes.

    Words are matched with SQLite's full-text search; where an embedding model is served, passages
    near in meaning are found too and both rankings are fused. Nothing outside the folder is read.

    Args:
        folder: with .txt, .md and .rst files, at any depth.
        models: embeds the passages, if it serves an embedding model.
    """

    def __init__(self, folder: pathlib.Path | str, models: ModelPort) -> None:
        self._folder = pathlib.Path(folder).resolve()
        if not self._folder.is_dir():
            raise NotFound(f"no folder {str(folder)!r}", hint="set tool_options.search.folder")
        self._models = models
        self._embedder = next((card.name for card in models.models() if card.kind == "embed"), None)
        self._seen: tuple[tuple[str, int, int], ...] | None = None
        self._passages: list[Passage] = []
        self._vectors: npt.NDArray[np.float32] | None = None
        self._words = sqlite3.connect(":memory:", check_same_thread=False)
        self._words_lock = threading.Lock()
        self._refreshing = asyncio.Lock()

    async def search(self, query: str, k: int) -> list[Passage]:
        """The `k` passages that fit the query best, best first."""
        async with self._refreshing:
            await self._refresh()
        by_words = await asyncio.to_thread(self._by_words, query, 4 * k)
        # Small embedders read few scripts without spaces: there the words count twice.
        ranked = [by_words] * (2 if unspaced_share(query) > 0.5 else 1)
        if self._vectors is not None and self._embedder is not None and query.strip():
            cue = await embed_beginnings(self._models, self._embedder, [shown(query)])
            vector = np.asarray(cue[0], np.float32)
            ranked.append([int(i) for i in np.argsort(-(self._vectors @ vector), kind="stable")[: 4 * k]])
        return [self._passages[i] for i in _fused(ranked)[:k]]

    async def scored(self, query: str, k: int) -> list[tuple[Passage, float, float]]:
        """As `search`, each with the cosine of its vector and the share of the query's words, 0 to 1."""
        found = await self.search(query, k)
        cosines = [0.0] * len(found)
        if self._embedder is not None and found:
            texts = [shown(query), *(p.text for p in found)]
            cue, *rows = np.asarray(await embed_beginnings(self._models, self._embedder, texts), np.float32)
            cosines = [max(0.0, min(1.0, float(row @ cue))) for row in rows]
        shares = shared_words(query, [p.text for p in found])
        return list(zip(found, cosines, shares, strict=True))

    async def _refresh(self) -> None:
        files = await asyncio.to_thread(self._files)
        seen = tuple((str(f), f.stat().st_mtime_ns, f.stat().st_size) for f in files)
        if seen == self._seen:
            return
        self._passages = await asyncio.to_thread(lambda: [p for f in files for p in self._read(f)])
        await asyncio.to_thread(self._index_words)
        self._vectors = None
        if self._embedder is not None and self._passages:
            texts = [p.text for p in self._passages]
            self._vectors = np.asarray(
                await embed_beginnings(self._models, self._embedder, texts), np.float32
            )
        self._seen = seen

    def _files(self) -> list[pathlib.Path]:
        found = []
        for place, folders, names in os.walk(self._folder):
            folders.sort()
            for name in sorted(names):
                file = pathlib.Path(place, name)
                inside = file.resolve().is_relative_to(self._folder)
                if inside and file.suffix.lower() in ENDINGS and file.stat().st_size <= MAX_FILE_BYTES:
                    found.append(file)
        if len(found) > MAX_FILES:
            raise TooLarge(f"folder {self._folder.name!r} has {len(found)} documents, at most {MAX_FILES}")
        return found

    def _read(self, file: pathlib.Path) -> Iterable[Passage]:
        source = file.relative_to(self._folder).as_posix()
        for text in passages(file.read_text("utf-8", "replace")):
            yield Passage(source=source, text=text)

    def _index_words(self) -> None:
        with self._words_lock:
            self._words.executescript(
                "DROP TABLE IF EXISTS words;"
                "CREATE VIRTUAL TABLE words USING fts5(text, tokenize='porter unicode61')"
            )
            rows = [(i, terms(f"{p.source}\n{p.text}")) for i, p in enumerate(self._passages)]
            self._words.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", rows)

    def _by_words(self, query: str, most: int) -> list[int]:
        words = sorted(set(re.findall(r"\w+", terms(query).lower())))[:64]
        if not words:
            return []
        match = " OR ".join(f'"{word}"' for word in words)
        sql = "SELECT rowid FROM words WHERE words MATCH ? ORDER BY bm25(words) LIMIT ?"
        with self._words_lock:
            return [row[0] for row in self._words.execute(sql, (match, most))]


def passages(text: str) -> list[str]:
    """Paragraphs, joined up to `PASSAGE_CHARACTERS`; a longer one is split between words."""
    found: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        for piece in _pieces(" ".join(paragraph.split())):
            if found and len(found[-1]) + len(piece) < PASSAGE_CHARACTERS:
                found[-1] += "\n" + piece
            else:
                found.append(piece)
    return found


def _pieces(paragraph: str) -> Iterable[str]:
    while len(paragraph) > PASSAGE_CHARACTERS:
        end = paragraph.rfind(" ", 1, PASSAGE_CHARACTERS)
        end = PASSAGE_CHARACTERS if end < 1 else end
        yield paragraph[:end]
        paragraph = paragraph[end:].lstrip()
    if paragraph:
        yield paragraph


def _fused(rankings: Sequence[Sequence[int]]) -> list[int]:
    """Reciprocal rank fusion."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, index in enumerate(ranking):
            scores[index] = scores.get(index, 0.0) + 1 / (_FUSION + rank)
    return sorted(scores, key=lambda index: (-scores[index], index))


def folder_option(folder: object, tool: str) -> str:
    """The folder that an agent file gives a tool. Raises InvalidRequest when it gives none."""
    if not isinstance(folder, str) or not folder:
        raise InvalidRequest(
            f"tool {tool!r} needs a folder of documents",
            hint=f"set tool_options.{tool}.folder",
            param="tools",
        )
    return folder
