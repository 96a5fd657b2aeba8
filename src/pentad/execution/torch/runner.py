"""TorchRunner: one model on one device, in PyTorch. On the CPU the reference for every faster runner."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import torch

from pentad.errors import Incompatible, InvalidRequest
from pentad.execution.attention_filter import AttentionFilter
from pentad.execution.batch import Drawn, RaggedBatch, SampleRow
from pentad.execution.form import ModelForm
from pentad.execution.kv.sizing import block_count
from pentad.execution.layers import Experts
from pentad.execution.mixers import LatentAttention
from pentad.execution.sampling import draw_batch
from pentad.execution.spec import Attention, ModelSpec
from pentad.execution.support import check_supported
from pentad.execution.threads import ThreadChoice
from pentad.execution.torch.adapters import TorchAdapters, adapted
from pentad.execution.torch.attention import PagedAttention
from pentad.execution.torch.cache import KVCache
from pentad.execution.torch.decode import DecodeKernel, decode_kernel
from pentad.execution.torch.devices import Precision, free_bytes, pick_device, resolve_device, resolve_dtype
from pentad.execution.torch.filtered_attention import FilteredAttention, Filtering, check_filter
from pentad.execution.torch.graphs import DecodeSteps, GraphRecorder
from pentad.execution.torch.head_attention import PolicyAttention, whole_part
from pentad.execution.torch.linear import packing_available
from pentad.execution.torch.loading import WeightLoader
from pentad.execution.torch.program import Inputs, Program
from pentad.execution.torch.sampling import draw_rows
from pentad.execution.torch.source_encoder import SourceEncoder
from pentad.execution.torch.states import StateStore
from pentad.execution.weights import WeightSource

_SCORE_BYTES: Final = 8
"""Of one slot, layer and key/value head, where attention scores are kept."""


class TorchRunner:
    """Runs ragged batches over weights and KV blocks that it owns (execution/runner.py).

    Not thread-safe: one thread drives it. `close` gives the memory back.

    Args:
        program: the model.
        cache: its keys and values.
        threads: chooses the number of threads of each step; None leaves it.
        kernel: attends for decoding sequences; None leaves it to PyTorch.
        steps: computes the steps that only decode; None computes all in the same way.
        draws_there: whether tokens are drawn where the logits are, so that only ids leave the device.
        adapters: that the program's matrices are open to; None where they are not.
    """

    takes_embeddings = True

    def __init__(
        self,
        program: Program,
        cache: KVCache,
        threads: ThreadChoice | None = None,
        *,
        kernel: DecodeKernel | None = None,
        steps: DecodeSteps | None = None,
        draws_there: bool = False,
        adapters: TorchAdapters | None = None,
    ) -> None:
        self.adapters = adapters
        self._threads = threads
        self._draws_there = draws_there
        self._kernel = kernel
        self._steps = steps
        self._program: Program | None = program
        self._cache: KVCache | None = cache
        self._spec = program.spec
        self._encoder = None if program.weights.encoder is None else SourceEncoder(program, cache)
        self._states = StateStore(program.spec, cache.device)
        self._device = cache.device
        element_bytes = _element_bytes(program.spec, cache.dtype, attention_scores=cache.scores is not None)
        self._block_bytes = program.spec.kv_bytes_per_token(element_bytes) * cache.block_size
        self.weight_bytes = program.weights.nbytes
        """Bytes of the weights in the compute precision."""
        self.precision: Literal["float32", "bfloat16"] = (
            "float32" if cache.dtype == torch.float32 else "bfloat16"
        )
        """What is computed and cached in."""
        bits = 8 * cache.dtype.itemsize
        self.filtering: Filtering | None = None
        """What attention leaves out; None: nothing."""
        self.form = ModelForm(weight_bits=bits, kv_bits=bits)
        """The precision of weights and cache in memory."""

    @classmethod
    def load(
        cls,
        spec: ModelSpec,
        weights: WeightSource,
        *,
        kv_bytes: int | None = None,
        num_blocks: int | None = None,
        dtype: Precision = "auto",
        kv_dtype: str = "auto",
        block_size: int = 16,
        threads: int | None = None,
        device: str = "cpu",
        graphs: bool = True,
        attention_scores: bool = False,
        adapters: bool = False,
    ) -> TorchRunner:
        """A runner that holds the weights in its compute precision and an empty KV cache.

        Args:
            kv_bytes: size of the KV cache in bytes; ignored where `num_blocks` is given. With neither,
                the cache holds one sequence of the whole context.
            num_blocks: KV blocks of `block_size` tokens.
            kv_dtype: `auto`, or by name what is computed in, since keys and values are kept in no other.
            dtype: `auto` is bfloat16 where the device computes it in hardware, else float32.
            threads: threads per operation, for the whole process; None chooses between PyTorch's number
                and half of it as the machine's other work allows (see threads.py).
            device: `cpu`, `cuda` or `cuda:N`.
            attention_scores: whether to count what each KV slot is attended to with, for `page_scores`. Takes
                8 bytes per slot and KV head, and much time in every step.
            adapters: whether low-rank adapters can be put to it; see `execution.adapters`.
            graphs: whether decode steps on a GPU are recorded once and replayed; see graphs.py.

        Raises:
            BadModelFile: weights that do not fit the spec.
            Incompatible: an encoder, which has nothing to generate, a device that is not there, or a
                KV cache in another precision than is computed in.
            Infeasible: a KV cache that holds not even one block.
        """
        if not spec.causal:
            raise Incompatible(f"model {spec.name!r} is an encoder; it embeds texts and generates none")
        check_supported(spec)
        if attention_scores and not (spec.plain_scores and spec.by_head):
            raise Incompatible(
                f"attention is not counted in model {spec.name!r}, whose layers do not all weigh slots by "
                f"products of equal heads",
                hint="set --kv-policy keep-all",
            )
        if threads is not None and threads < 1:
            raise InvalidRequest(f"threads is {threads}, must be at least 1", param="threads")
        where = resolve_device(device)
        precision = resolve_dtype(dtype, where)
        check_kv_dtype(kv_dtype, precision)
        element_bytes = _element_bytes(spec, precision, attention_scores=attention_scores)
        blocks = block_count(spec, kv_bytes, num_blocks, block_size, element_bytes)
        pack = where.type == "cpu" and precision == torch.bfloat16 and packing_available()
        with _current(where), torch.inference_mode():
            loaded = WeightLoader(spec, weights, dtype=precision, device=where, pack=pack).load()
            room = TorchAdapters(spec, precision, where) if adapters else None
            program = Program(spec, loaded if room is None else adapted(loaded, spec, room))
            kernel = decode_kernel(where) if fused_decoding(program) else None
            recorded = graphs and recordable(spec) and kernel is not None and not attention_scores
            recorded = recorded and room is None
            scored = attention_scores
            cache = KVCache(spec, blocks, block_size, precision, where, scratch=recorded, scored=scored)
            steps = None
            if kernel is not None and recorded:
                steps = DecodeSteps(program, cache, kernel, GraphRecorder(where))
            chosen = _thread_choice(threads, where)
            there = where.type != "cpu"
            return cls(program, cache, chosen, kernel=kernel, steps=steps, draws_there=there, adapters=room)

    @staticmethod
    def pick_device(asked: str) -> str:
        """The device for the setting of that name: `auto` is the GPU where there is one."""
        return pick_device(asked)

    @staticmethod
    def free_bytes(device: str) -> int:
        """Memory of a GPU that nothing uses now."""
        return free_bytes(resolve_device(device))

    @staticmethod
    def kv_element_bytes(
        spec: ModelSpec,
        dtype: Precision = "auto",
        kv_dtype: str = "auto",
        device: str = "cpu",
        *,
        attention_scores: bool = False,
    ) -> float:
        """Bytes of one cached number with these options of `load`. Raises Incompatible as `load` does."""
        precision = resolve_dtype(dtype, resolve_device(device))
        check_kv_dtype(kv_dtype, precision)
        return _element_bytes(spec, precision, attention_scores=attention_scores)

    @property
    def spec(self) -> ModelSpec:
        return self._spec

    @property
    def block_size(self) -> int:
        return self._open()[1].block_size

    @property
    def num_blocks(self) -> int:
        return self._open()[1].num_blocks

    @property
    def block_bytes(self) -> int:
        return self._block_bytes

    def step(self, batch: RaggedBatch, rows: Sequence[SampleRow]) -> list[Drawn]:
        """Computes the batch, writes its keys and values, draws one token per logit row."""
        if not self._draws_there:
            logits = self.logits(batch)
            return draw_batch(logits, rows) if rows else []
        with _current(self._device), torch.inference_mode():
            found = self._compute(batch)
            return [] if found is None or not rows else draw_rows(found, rows)

    def logits(self, batch: RaggedBatch) -> npt.NDArray[np.float32]:
        """The raw logits [R, V] of the wanted rows; keys and values are written all the same."""
        chosen = self._threads.step(batch.tokens) if self._threads else contextlib.nullcontext()
        with _current(self._device), chosen, torch.inference_mode():
            found = self._compute(batch)
            if found is None:
                return np.empty((0, self._spec.vocab_size), np.float32)
            logits: npt.NDArray[np.float32] = found.float().cpu().numpy()
            return logits

    def _compute(self, batch: RaggedBatch) -> torch.Tensor | None:
        """Logits [R, V] on the device, good until the next step; None where none are wanted."""
        program, cache = self._open()
        if self.adapters is not None:
            self.adapters.begin(batch)
        if batch.head_slots is not None or cache.scores is not None:
            return self._compute_for_policy(batch)
        if self.filtering is not None:
            return self._compute_filtered(batch, self.filtering)
        if self._encoder is not None and batch.sources is not None:
            self._encoder.encode(batch.sources)
            if not len(batch.token_ids):
                return None
        cache.clear_begun(batch.slots)
        if self._steps is not None and self._steps.takes(batch):
            return self._steps.logits(batch)
        tokens = torch.from_numpy(batch.token_ids).to(self._device)
        positions = torch.from_numpy(batch.positions).to(self._device)
        attend = PagedAttention(self._spec, cache, batch, self._kernel, program.rules, self._states)
        return self._wanted(batch, program.hidden(tokens, positions, attend, self._inputs(batch)))

    def _compute_for_policy(self, batch: RaggedBatch) -> torch.Tensor | None:
        """The same where attention is counted or heads hold different tokens."""
        program, cache = self._open()
        cache.clear_begun(whole_part(batch).slots)
        tokens = torch.from_numpy(batch.token_ids).to(self._device)
        positions = torch.from_numpy(batch.positions).to(self._device)
        attend = PolicyAttention(self._spec, cache, batch, self._kernel)
        return self._wanted(batch, program.hidden(tokens, positions, attend, self._inputs(batch)))

    def _compute_filtered(self, batch: RaggedBatch, filtering: Filtering) -> torch.Tensor | None:
        program, cache = self._open()
        cache.clear_begun(batch.slots)
        tokens, positions = torch.from_numpy(batch.token_ids), torch.from_numpy(batch.positions)
        attend = FilteredAttention(self._spec, cache, batch, filtering)
        return self._wanted(batch, program.hidden(tokens, positions, attend, self._inputs(batch)))

    def _wanted(self, batch: RaggedBatch, hidden: torch.Tensor) -> torch.Tensor | None:
        program, _ = self._open()
        if not len(batch.logit_rows):
            return None
        if len(batch.logit_rows) < len(hidden):
            hidden = hidden[torch.from_numpy(batch.logit_rows).to(self._device)]
        return program.logits(hidden)

    def _inputs(self, batch: RaggedBatch) -> Inputs | None:
        """The batch's input embeddings on the device, and the tokens that take them."""
        if batch.embeddings is None or batch.embedding_rows is None:
            return None
        takers = np.flatnonzero(batch.embedding_rows >= 0)
        rows = batch.embeddings[batch.embedding_rows[takers]]
        return torch.from_numpy(rows).to(self._device), torch.from_numpy(takers).to(self._device)

    def copy_block(self, source: int, target: int) -> None:
        """Copies one KV block over all layers (copy on write)."""
        with _current(self._device), torch.inference_mode():
            self._open()[1].copy(source, target)

    def copy_slots(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copies single KV slots over all layers (accepted branches of a tree)."""
        with _current(self._device), torch.inference_mode():
            self._open()[1].copy_slots(*zip(*pairs, strict=True))

    def copy_state(self, source: int, target: int) -> None:
        """Copies a sequence's state over all layers."""
        with _current(self._device), torch.inference_mode():
            self._states.copy(source, target)

    @property
    def keeps_scores(self) -> bool:
        """Whether the attention that slots get is counted."""
        return self._open()[1].scores is not None

    def move_entries(self, moves: npt.NDArray[np.int64]) -> None:
        """Copies entries of single heads, all read before any is written (execution/runner.py)."""
        with _current(self._device), torch.inference_mode():
            self._open()[1].move_entries(moves)

    def page_scores(self, pages: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        """[n, block_size] attention that the slots of pages [n] have had since each was written.

        Raises ValueError where none is counted.
        """
        if not self.keeps_scores:
            raise ValueError("no attention scores are kept; load with attention_scores=True")
        with _current(self._device), torch.inference_mode():
            return self._open()[1].page_scores(pages)

    def filter_attention(self, filter: AttentionFilter) -> None:
        """Lets the filter say what later steps attend to.

        Raises Incompatible for a model that no filter applies to, or one on a GPU.
        """
        if filter.start(self._spec) is None:
            self.filtering = None
            return
        check_filter(self._spec, self._device.type)
        self.filtering = Filtering(filter)

    def close(self) -> None:
        """Gives weights and cache back; the runner is not used again."""
        self._program = self._cache = self._steps = self._encoder = None

    def _open(self) -> tuple[Program, KVCache]:
        assert self._program is not None and self._cache is not None, "the runner is closed"  # noqa: PT018
        return self._program, self._cache


def fused_decoding(program: Program) -> bool:
    """Whether a kernel for decoding computes what layers attend with."""
    mixers = [block.mixer for block in program.spec.blocks]
    chunked = any(isinstance(mixer, Attention) and mixer.chunk for mixer in mixers)
    latent = any(isinstance(mixer, LatentAttention) for mixer in mixers)
    return program.rules is None and not latent and not chunked


def recordable(spec: ModelSpec) -> bool:
    """Whether a step that decodes is the same work each time: which experts are read is known as it runs."""
    return all(
        isinstance(block.mixer, Attention)
        and block.cross is None
        and not isinstance(block.feed_forward, Experts)
        for block in spec.blocks
    )


def _element_bytes(spec: ModelSpec, precision: torch.dtype, *, attention_scores: bool) -> float:
    """Bytes of a cached number; its share of what is counted per slot and KV head included."""
    return float(precision.itemsize) + (_SCORE_BYTES / (2 * spec.head_dim) if attention_scores else 0)


def check_kv_dtype(asked: str, precision: torch.dtype) -> None:
    """Raises Incompatible for a KV cache in anything but the compute precision."""
    if asked != "auto" and asked != str(precision).removeprefix("torch."):
        raise Incompatible(
            f"PyTorch keeps keys and values in what it computes in, {str(precision).removeprefix('torch.')}, "
            f"not in {asked!r}",
            hint="set kv_dtype to auto, or kernels to auto where the native kernels can run the model",
            param="kv_dtype",
        )


def _current(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Makes the device the current one of this thread, where streams and launches go."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def _thread_choice(threads: int | None, device: torch.device) -> ThreadChoice | None:
    """None where there is nothing to choose: a fixed number, a single core or another device."""
    if threads is not None:
        torch.set_num_threads(threads)
        return None
    most = torch.get_num_threads()
    return (
        ThreadChoice(most, torch.set_num_threads, time.monotonic)
        if device.type == "cpu" and most > 1
        else None
    )
