"""NativeRunner: one model on this machine's CPU through the kernel library. Needs no PyTorch."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import psutil

from pentad.errors import Incompatible, Infeasible, InvalidRequest
from pentad.execution.adapters import unadaptable
from pentad.execution.batch import Drawn, RaggedBatch, SampleRow
from pentad.execution.form import ModelForm
from pentad.execution.kv.sizing import block_count
from pentad.execution.native.adapters import NativeAdapters
from pentad.execution.native.choice import choose_kernels, unsupported_geometry, unsupported_storage
from pentad.execution.native.forms import FORMS
from pentad.execution.native.inputs import BatchInputs
from pentad.execution.native.kv_format import (
    BLOCK_SIZE,
    CachedBlock,
    KVBits,
    cached_block,
    check_counted,
    check_key_centres,
    kv_bits,
    kv_element_bytes,
)
from pentad.execution.native.latent import packed_format
from pentad.execution.native.library import KernelLibrary, built, cpu_flags, open_library
from pentad.execution.native.loading import NativeLoader, is_matrix
from pentad.execution.native.packed import PackedCache
from pentad.execution.native.pager import Pager
from pentad.execution.native.paging import ExpertMemory, paging_hook
from pentad.execution.native.program import (
    dense_width,
    expert_choices,
    packed_mixers,
    packed_program,
    packed_rotations,
)
from pentad.execution.native.sampling import DrawPlan, greedy_drawn
from pentad.execution.native.structs import MIXERS, Config, MixerNumbers
from pentad.execution.residency.base import WeightResidency
from pentad.execution.residency.mapped import Mapped
from pentad.execution.sampling import is_plain
from pentad.execution.spec import ModelSpec
from pentad.execution.threads import ThreadChoice
from pentad.execution.weights import WeightSource
from pentad.types import Decision

_log = logging.getLogger(__name__)

_WRONG: Final = (
    "",
    "token id",
    "position",
    "slot",
    "block table",
    "logit row",
    "size",
    "tree",
    "file",
    "page of a head",
    "input embedding",
    "row of a state",
)
"""What pentad_step finds wrong with a batch."""
_NO_MEMORY: Final = 6
_FILE_CUT: Final = 8
_ATTENDS: Final = (MIXERS["attention"], MIXERS["latent"])
_NO_HEADS: Final = MixerNumbers(heads=1, groups=1, key_dim=32)
"""Of models in which no layer attends."""
MOST_THREADS: Final = 1024
"""Threads of a team, as the kernels bound it."""
_PHASES: Final = ("embed", "qkv", "attention", "output", "gate_up", "down", "head")
"""Phases of a step, as pentad_times gives them; the head's includes drawing."""
_PHASE_PLACES: Final = 8


class WeightsLost(RuntimeError):
    """A part of the weights is gone, so that no step is right any more."""


class NativeRunner:
    """Runs ragged batches over packed weights and KV blocks that it owns (execution/runner.py).

    Not thread-safe: one thread drives it; the kernels' own threads are inside. `close` gives the
    memory back. Cost of a step in Python: some microseconds, and one more per row drawn.
    """

    takes_embeddings = True

    def __init__(
        self,
        spec: ModelSpec,
        library: KernelLibrary,
        model: int,
        num_blocks: int,
        weights: npt.NDArray[np.uint8],
        threads: ThreadChoice | None,
        form: ModelForm,
    ) -> None:
        self._spec = spec
        self._functions: Any = library.functions
        self._model: int | None = model
        self._weights: npt.NDArray[np.uint8] | None = weights
        self._num_blocks = num_blocks
        self._threads = threads
        self._inputs = BatchInputs(spec.width)
        self._draws = DrawPlan(spec.vocab_size)
        self.pager: Pager | None = None
        """Tells a hook what steps read, where not all weights are kept in memory."""
        self.adapters = None if unadaptable(spec) else NativeAdapters(spec, library, model)
        self.library = library
        self.form = form
        """The precision of packed weights and cache in memory."""
        self.kernels = library.name
        """The instruction set in use."""
        self.weight_bytes = int(self._functions.pentad_weight_bytes(model))
        """Bytes of the packed matrices."""
        self.step_weight_bytes = self.weight_bytes
        """Of those, what a step of one token must read: none of tables whose rows are looked up."""
        self.keeps_scores = False
        """Whether the attention that slots get is counted."""
        self.weights_found = False
        """Whether a packed file of an earlier start was used."""
        self.weights_decision: Decision | None = None
        """Where the weights were put, with the bytes in memory and in a mapped file."""

    @classmethod
    def load(
        cls,
        spec: ModelSpec,
        weights: WeightSource,
        *,
        kv_bytes: int | None = None,
        num_blocks: int | None = None,
        dtype: str = "auto",
        kv_dtype: str = "auto",
        block_size: int = BLOCK_SIZE,
        threads: int | None = None,
        kernels: str = "auto",
        cache: PackedCache | None = None,
        residency: WeightResidency | None = None,
        expert_memory: ExpertMemory | None = None,
        attention_scores: bool = False,
        key_centres: bool = True,
    ) -> NativeRunner:
        """A runner that holds the packed weights and an empty KV cache.

        Args:
            kv_bytes: size of the KV cache in bytes; ignored where `num_blocks` is given. With neither,
                the cache holds one sequence of the whole context.
            num_blocks: KV blocks of 16 tokens.
            dtype: only `auto`: weights are computed with as they are stored.
            kv_dtype: what keys and values are kept in: `auto` and `bfloat16`, or `int8` codes
                (docs/execution.md).
            block_size: only 16.
            threads: of a step, at most 1024; None chooses between one per core and half of that as the
                machine's other work allows (see threads.py).
            kernels: the instruction set by name; `auto` takes the fastest that this CPU has.
            cache: where packed weights are kept between starts; None packs into memory.
            residency: where the weights lie; None maps the packed file.
            expert_memory: bound of the memory that experts take, and which of them stay; None: all do.
            attention_scores: whether to count what each KV slot is attended to with, for
                `page_scores`. Takes 8 bytes per slot, layer and head, and time in every step.
            key_centres: whether keys with a bias are kept less what it gives them all, by position. False
                lets them lie anywhere, as slots by head need it.

        Raises:
            BadModelFile: weights that do not fit the spec.
            Incompatible: a model, precision or block size that the kernels cannot do, or kernels that
                are not built or not for this CPU.
            Infeasible: a KV cache that holds not even one block, or no room for resident weights.
        """
        _check_options(spec, dtype, block_size, threads)
        check_counted(spec, attention_scores=attention_scores)
        name = choose_kernels(kernels, built=built(), flags=cpu_flags())
        library = open_library(name)
        check_key_centres(spec, kv_dtype, key_centres=key_centres)
        element_bytes = kv_element_bytes(spec, kv_dtype, attention_scores)
        blocks = block_count(spec, kv_bytes, num_blocks, block_size, element_bytes)
        most = min(threads or default_threads(), MOST_THREADS)
        flags = {"attention_scores": int(attention_scores), "key_centres": int(key_centres)}
        model = _create(library, spec, blocks, most, kv_bits(kv_dtype), flags)
        if (started := library.functions.pentad_threads(model)) < most:
            _log.warning("the system started %d of %d threads for model %r", started, most, spec.name)
            most = started
        try:
            loader = NativeLoader(library, model, spec, weights)
            held = loader.load(cache, residency or Mapped())
            hook = paging_hook(spec, held, loader.places, expert_memory)
        except BaseException:
            library.functions.pentad_destroy(model)
            raise

        active = most

        def apply(count: int) -> None:
            nonlocal active
            if count != active:
                library.functions.pentad_set_threads(model, count)
                active = count

        choice = ThreadChoice(most, apply, time.monotonic) if threads is None and most > 1 else None
        runner = cls(spec, library, model, blocks, held.memory, choice, packed_form(spec, weights, kv_dtype))
        runner.weights_found, runner.weights_decision = held.found, held.decision
        runner.keeps_scores = attention_scores
        if hook is not None:
            runner.pager = Pager(library, model, spec, hook)
        looked_up = ["embed"] * (not spec.tied_head) + ["positions"] * (spec.learned is not None)
        for table in map(weights.tensor, looked_up):
            packed = library.functions.pentad_packed_bytes(FORMS[table.format].code, *table.shape)
            runner.step_weight_bytes -= int(packed)
        return runner

    @staticmethod
    def kv_element_bytes(
        spec: ModelSpec,
        dtype: str = "auto",  # noqa: ARG004
        kv_dtype: str = "auto",
        device: str = "cpu",  # noqa: ARG004
        *,
        attention_scores: bool = False,
    ) -> float:
        """Bytes of one cached number with these options of `load`. Raises Incompatible as `load` does."""
        return kv_element_bytes(spec, kv_dtype, attention_scores)

    @staticmethod
    def supports(spec: ModelSpec, weights: WeightSource) -> str | None:
        """Why this model cannot run on the kernels; None if it can."""
        return unsupported_storage(weights) or unsupported_geometry(spec)

    @staticmethod
    def form_of(spec: ModelSpec, weights: WeightSource, kv_dtype: str = "auto") -> ModelForm:
        """The precision that a runner would hold this model in, without loading it."""
        return packed_form(spec, weights, kv_dtype)

    @property
    def spec(self) -> ModelSpec:
        return self._spec

    @property
    def block_size(self) -> int:
        return BLOCK_SIZE

    @property
    def num_blocks(self) -> int:
        return self._num_blocks

    @property
    def block_bytes(self) -> int:
        return int(self._functions.pentad_block_bytes(self._open()))

    def step(self, batch: RaggedBatch, rows: Sequence[SampleRow]) -> list[Drawn]:
        """Computes the batch, writes its keys and values, draws one token per logit row.

        Logits are kept only for rows that are more than greedy.
        """
        inputs = self._inputs
        self._set(batch)
        if all(map(is_plain, rows)):
            self._run(len(batch.token_ids))
            return [greedy_drawn(token) for token in inputs.greedy()]
        self._draws.set(rows)
        self._run(len(batch.token_ids), self._draws)
        return self._draws.results(inputs.greedy())

    def stats(self) -> dict[str, float]:
        """Of weights that are not all in memory: what was found, read and waited for."""
        return {} if self.pager is None else self.pager.hook.stats()

    def set_timed(self, timed: bool) -> None:
        """Whether the steps that follow add to `phase_seconds`. Costs some microseconds a step."""
        self._functions.pentad_set_timed(self._open(), int(timed))

    def phase_seconds(self) -> dict[str, float]:
        """Seconds that the timed steps have spent in each phase, in the order of a step."""
        seconds = np.zeros(_PHASE_PLACES)
        self._functions.pentad_times(self._open(), seconds.ctypes.data)
        return dict(zip(_PHASES, seconds.tolist(), strict=False))

    @property
    def packed_weights(self) -> npt.NDArray[np.uint8]:
        """The memory that holds all packed matrices."""
        assert self._weights is not None, "the runner is closed"
        return self._weights

    def expert_bytes_read(self) -> int:
        """Bytes of packed experts that all steps so far have read, shared ones included."""
        return int(self._functions.pentad_expert_bytes(self._open()))

    def logits(self, batch: RaggedBatch) -> npt.NDArray[np.float32]:
        """The raw logits [R, V] of the wanted rows; keys and values are written all the same."""
        found = np.empty((len(batch.logit_rows), self._spec.vocab_size), np.float32)
        self._set(batch, found)
        self._run(len(batch.token_ids))
        return found

    def hidden(self, batch: RaggedBatch) -> npt.NDArray[np.float32]:
        """The residual stream [N, E] behind the last layer; keys and values are written all the same."""
        found = np.empty((len(batch.token_ids), self._spec.width), np.float32)
        self._set(batch)
        self._inputs.struct.hidden = found.ctypes.data
        try:
            self._run(len(batch.token_ids))
        finally:
            self._inputs.struct.hidden = None
        return found

    def copy_block(self, source: int, target: int) -> None:
        """Copies one KV block over all layers (copy on write)."""
        for block in (source, target):
            if not 0 <= block < self._num_blocks:
                raise ValueError(f"block {block} is not one of {self._num_blocks}")
        self._functions.pentad_copy_block(self._open(), source, target)

    def read_block(self, block: int) -> memoryview:
        """A block's keys and values over all layers, in place (execution/kv/store.py)."""
        size = int(self._functions.pentad_kv_block_bytes(self._open()))
        place = self._functions.pentad_block_data(self._open(), block)
        if not place:
            raise ValueError(f"block {block} is not one of {self._num_blocks}, or holds nothing")
        return memoryview((ctypes.c_uint8 * size).from_address(place)).cast("B")

    def write_block(self, block: int, data: memoryview) -> None:
        """Puts what `read_block` gave into a block."""
        self.read_block(block)[:] = data

    def copy_slots(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copies single KV slots over all layers (accepted branches of a tree)."""
        numbers = np.array(pairs, np.int32)
        if numbers.min() < 0 or numbers.max() >= self._num_blocks * BLOCK_SIZE:
            raise ValueError(f"slots {pairs} are not all of {self._num_blocks} blocks")
        self._functions.pentad_copy_slots(self._open(), numbers.ctypes.data, len(pairs))

    def copy_state(self, source: int, target: int) -> None:
        """Copies a sequence's state over all layers."""
        wrong = self._functions.pentad_copy_state(self._open(), source, target)
        if wrong == -1:
            raise ValueError(f"there is no state {source} or {target} of model {self._spec.name!r}")
        if wrong:
            raise MemoryError("no memory for one more state")

    def cached_block(self, *, layer: int, head: int, block: int, place: int) -> CachedBlock:
        """What one block holds, as attention reads it where it is block `place` of a text.

        Raises:
            ValueError: there is none of that number, or layers do not all keep equal heads.
        """
        return cached_block(
            self.library, self._open(), self._spec, layer=layer, head=head, block=block, place=place
        )

    def move_entries(self, moves: npt.NDArray[np.int64]) -> None:
        """Copies entries of single heads, all read before any is written (execution/runner.py)."""
        pairs = np.ascontiguousarray(moves, np.int64)
        wrong = self._functions.pentad_move_entries(self._open(), pairs.ctypes.data, len(pairs))
        if wrong == -1:
            raise ValueError("an entry is in none of the cache's pages")
        if wrong:
            raise MemoryError(f"no memory to move {len(pairs)} entries")

    def page_scores(self, pages: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        """How much attention the slots of pages [n] have had since each was written, [n, 16].

        The softmax weights of all queries that saw a slot, its own among them, summed over the query
        heads that share the key/value head; what a policy that drops or demotes cached tokens ranks them
        by. Drafted tokens do not count as queries, since they may be rejected. Copied with blocks and
        slots. Does not depend on the number of threads.

        Raises:
            ValueError: no such page, or the runner was loaded without `attention_scores`.
        """
        numbers = np.ascontiguousarray(pages, np.int32)
        found = np.empty((len(numbers), BLOCK_SIZE))
        model = self._open()
        if self._functions.pentad_page_scores(model, numbers.ctypes.data, len(numbers), found.ctypes.data):
            if not self.keeps_scores:
                raise ValueError("no attention scores are kept; load with attention_scores=True")
            raise ValueError(f"pages {numbers.min()} to {numbers.max()} are not all in the cache")
        return found

    def attention_scores(self, block: int) -> npt.NDArray[np.float64]:
        """The same of a block's pages, [layers, kv_heads, 16]. Raises ValueError likewise."""
        layers, kv_heads = self._spec.layers, self._spec.kv_heads
        if not 0 <= block < self._num_blocks:
            raise ValueError(f"there is no block {block}")
        first = block * layers * kv_heads
        pages = np.arange(first, first + layers * kv_heads, dtype=np.int32)
        return self.page_scores(pages).reshape(layers, kv_heads, BLOCK_SIZE)

    def close(self) -> None:
        """Gives weights and cache back; the runner is not used again."""
        if self.pager is not None:
            self.pager.close()
            self.pager = None
        if self._model is not None:
            self._functions.pentad_destroy(self._model)
        self._model = self._weights = None

    def _set(self, batch: RaggedBatch, logits: npt.NDArray[np.float32] | None = None) -> None:
        self._inputs.set(batch, logits)
        if self.pager is not None:
            self.pager.begin(len(batch.token_ids), started=not batch.positions.all())
        if self.adapters is not None:
            self.adapters.begin(batch)

    def _run(self, tokens: int, draws: DrawPlan | None = None) -> None:
        """One call of the kernels over what the inputs hold.

        Raises:
            ValueError: a broken batch.
            MemoryError: the step found no memory; a smaller one may.
            WeightsLost: the file that the weights are mapped from was cut short.
        """
        model, batch = self._open(), ctypes.byref(self._inputs.struct)
        with self._threads.step(tokens) if self._threads else contextlib.nullcontext():
            if draws is None:
                wrong = self._functions.pentad_step(model, batch)
            else:
                wrong = self._functions.pentad_step_draw(model, batch, ctypes.byref(draws.struct))
        if self.pager is not None:
            self.pager.check()
        if wrong == _NO_MEMORY:
            raise MemoryError(f"no memory for a step of {tokens} tokens")
        if wrong == _FILE_CUT:
            raise WeightsLost("the file of packed weights was cut short while in use; restart the server")
        if wrong:
            raise ValueError(f"the batch has an impossible {_WRONG[wrong]}")

    def _open(self) -> int:
        assert self._model is not None, "the runner is closed"
        return self._model


def packed_form(spec: ModelSpec, weights: WeightSource, kv_dtype: str) -> ModelForm:
    """Bits of a weight once packed: of the layers' matrices on average, and of the head."""
    elements = bits = 0.0
    for i, block in enumerate(spec.blocks):
        for name, shape in block.shapes(spec.width).items():
            if is_matrix(name, shape):
                count = math.prod(shape)
                elements += count
                stored = packed_format(name, weights.tensor(f"layers.{i}.{name}").format)
                bits += count * FORMS[stored].bits
    head = weights.tensor("embed" if spec.tied_head else "head")
    return ModelForm(
        weight_bits=bits / elements,
        head_bits=FORMS[head.format].bits,
        kv_bits=8 * kv_element_bytes(spec, kv_dtype),
    )


def default_threads() -> int:
    """One per core that this process may use; two threads of one core share its arithmetic."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))


def _check_options(spec: ModelSpec, dtype: str, block_size: int, threads: int | None) -> None:
    reason = unsupported_geometry(spec)
    if reason is not None:
        raise Incompatible(
            f"model {spec.name!r} cannot run on the native kernels: {reason}", hint="choose --kernels torch"
        )
    if dtype != "auto":
        raise Incompatible(
            f"the native kernels compute with weights as they are stored, not in {dtype!r}",
            hint="leave weight_dtype at auto or choose --kernels torch",
            param="dtype",
        )
    if block_size != BLOCK_SIZE:
        raise InvalidRequest(
            f"block_size is {block_size}; the native kernels take {BLOCK_SIZE}", param="block_size"
        )
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise InvalidRequest(f"threads is {threads}, must be 1 to {MOST_THREADS}", param="threads")


def _create(
    library: KernelLibrary,
    spec: ModelSpec,
    blocks: int,
    threads: int,
    kept: KVBits,
    flags: Mapping[str, int],
) -> int:
    """An empty model with its KV cache. Raises Infeasible when memory does not suffice."""
    program, rotations, mixers = packed_program(spec), packed_rotations(spec), packed_mixers(spec)
    heads = next((m for m in mixers if m.kind in _ATTENDS), _NO_HEADS)
    places = [] if spec.learned is None else [spec.learned.max_positions]
    config = Config(
        layers=spec.layers,
        width=spec.width,
        heads=heads.heads,
        kv_heads=heads.groups,
        head_dim=heads.key_dim,
        ffn_width=dense_width(spec),
        vocab=spec.vocab_size,
        rotation_count=len(rotations),
        threads=threads,
        num_blocks=blocks,
        max_context=min(spec.context_length, blocks * BLOCK_SIZE, *places),
        key_bits=kept.keys,
        value_bits=kept.values,
        shared_values=heads.value_dim if heads.kind == MIXERS["latent"] else 0,
        **flags,
        rotations=ctypes.addressof(rotations),
        mixers=ctypes.addressof(mixers),
    )
    model: int | None = library.functions.pentad_create(ctypes.byref(config))
    if model is None:
        raise Infeasible(
            f"memory does not hold {blocks} KV blocks of {spec.name!r}",
            hint="lower kv_bytes",
            param="kv_bytes",
        )
    refused = any(
        library.functions.pentad_set_experts(model, layer, ctypes.byref(choice))
        for layer, choice in expert_choices(spec)
    )
    if refused or library.functions.pentad_set_program(model, ctypes.addressof(program), len(program)):
        library.functions.pentad_destroy(model)
        raise Infeasible(f"memory does not hold model {spec.name!r}", hint="choose a smaller model")
    return model
