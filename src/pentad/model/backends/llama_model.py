"""llama.cpp's model and context, through the C interface of `llama-cpp-python` (an extra)."""

from __future__ import annotations

import ctypes
import importlib
import logging
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pentad.errors import BackendFailed, MissingExtra

PREFILL_CHUNK_TOKENS = 256
LOGGED_LEVELS = (3, 4)
"""ggml's numbers for warnings and errors."""

_log = logging.getLogger(__name__)


class TokenModel(Protocol):
    """One sequence's worth of a language model. Driven by one thread at a time."""

    def next_logits(
        self, tokens: Sequence[int], cancelled: Callable[[], bool]
    ) -> tuple[npt.NDArray[np.float32], int] | None:
        """Logits [V] behind `tokens`, and how many tokens were known already; None if cancelled.

        Keeps what it computed: a call that extends the previous one computes only what is new.
        """
        ...

    def close(self) -> None: ...


class LlamaModel:
    """A GGUF file in llama.cpp.

    Args:
        path: the GGUF file.
        context_length: tokens that the context holds.
        threads: of the computation; None leaves llama.cpp's choice.
        repack: whether llama.cpp may rearrange weights for faster kernels. None means yes, but not
            where the processor has AMX: those kernels of llama.cpp load a tile configuration that
            such processors refuse, which ends the process.

    Raises:
        MissingExtra: `llama-cpp-python` is not installed.
        BackendFailed: llama.cpp cannot load the file.
    """

    def __init__(
        self, path: str, *, context_length: int, threads: int | None = None, repack: bool | None = None
    ) -> None:
        self._library = library = _library()
        self._log_callback = library.llama_log_callback(_forward)
        library.llama_log_set(self._log_callback, ctypes.c_void_p(0))
        library.llama_backend_init()
        params = library.llama_model_default_params()
        params.use_extra_bufts = not has_amx() if repack is None else repack
        self._model = library.llama_model_load_from_file(path.encode(), params)
        if not self._model:
            raise BackendFailed(f"llama.cpp cannot load {path!r}", hint="check the file; the log has more")
        sizes = library.llama_context_default_params()
        sizes.n_ctx = context_length
        sizes.n_batch = sizes.n_ubatch = PREFILL_CHUNK_TOKENS
        if threads is not None:
            sizes.n_threads = sizes.n_threads_batch = threads
        self._context = library.llama_init_from_model(self._model, sizes)
        if not self._context:
            library.llama_model_free(self._model)
            raise BackendFailed(
                f"llama.cpp cannot hold a context of {context_length} tokens", hint="lower the context length"
            )
        self._vocab_size = int(library.llama_vocab_n_tokens(library.llama_model_get_vocab(self._model)))
        self._known: list[int] = []
        """Tokens whose keys and values are in the context."""

    def next_logits(
        self, tokens: Sequence[int], cancelled: Callable[[], bool]
    ) -> tuple[npt.NDArray[np.float32], int] | None:
        library = self._library
        # At least the last token is computed again: its logits are what is wanted.
        known = min(_common(self._known, tokens), len(tokens) - 1)
        if known < len(self._known):
            memory = library.llama_get_memory(self._context)
            if not library.llama_memory_seq_rm(memory, 0, known, -1):
                library.llama_memory_clear(memory, True)
                known = 0
            del self._known[known:]
        for start in range(known, len(tokens), PREFILL_CHUNK_TOKENS):
            if cancelled():
                return None
            part = list(tokens[start : start + PREFILL_CHUNK_TOKENS])
            ids = (library.llama_token * len(part))(*part)  # the batch only points to it
            status = library.llama_decode(self._context, library.llama_batch_get_one(ids, len(part)))
            if status:
                raise BackendFailed(
                    f"llama.cpp failed with status {status} at token {start}",
                    hint="lower the context length or the prompt",
                )
            self._known += part
        pointer = library.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(pointer, shape=(self._vocab_size,)).copy(), known

    def close(self) -> None:
        """Frees context and weights."""
        self._library.llama_free(self._context)
        self._library.llama_model_free(self._model)


def has_amx() -> bool:
    """Whether this processor has AMX tiles, as far as the system tells."""
    try:
        return " amx_tile" in pathlib.Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False


def _library() -> Any:
    try:
        return importlib.import_module("llama_cpp.llama_cpp")
    except ImportError as error:
        raise MissingExtra(
            "the llama.cpp backend needs llama-cpp-python", hint="pip install 'pentad[llamacpp]'"
        ) from error


def _common(known: Sequence[int], tokens: Sequence[int]) -> int:
    """Length of the common beginning."""
    length = min(len(known), len(tokens))
    if list(known[:length]) == list(tokens[:length]):
        return length
    return next(i for i in range(length) if known[i] != tokens[i])


def _forward(level: int, text: bytes, _: object) -> None:
    """llama.cpp's own log goes to ours, warnings and worse only."""
    if level in LOGGED_LEVELS:
        _log.warning("%s", text.decode("utf-8", "replace").rstrip())
