"""From stored tensors to the program's weights: each tensor is converted once, a few rows at a time."""

from __future__ import annotations

import mmap
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch

from pentad.execution.layers import Experts, FeedForward
from pentad.execution.mixers import LatentAttention, Mixer, Norm, Recurrent, Shape, ShortConvolution
from pentad.execution.positions import ProjectedDistances
from pentad.execution.quant import dequantize, dequantize_rows
from pentad.execution.spec import Attention, ModelSpec, Rope
from pentad.execution.torch.classifier import ClassifierWeights
from pentad.execution.torch.cross import CrossWeights
from pentad.execution.torch.distances import DistanceScores
from pentad.execution.torch.feed_forward import DenseWeights, ExpertWeights
from pentad.execution.torch.latent import LatentWeights
from pentad.execution.torch.linear import Linear, linear
from pentad.execution.torch.recurrent import Convolution, RecurrentWeights, ShortConvolutionWeights
from pentad.execution.torch.rope import half_order
from pentad.execution.weight_reader import WeightReader
from pentad.execution.weights import StoredTensor, WeightSource

_CHUNK_ELEMENTS = 1 << 20
"""Numbers converted at once: bounds what a load needs beyond the weights to about 20 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NormWeights:
    """Scale and, for layer norms, shift: [E] each."""

    scale: torch.Tensor
    shift: torch.Tensor | None
    eps: float
    kind: Literal["rms", "layer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionWeights:
    """Of ordinary attention. `qkv` is [(H + 2K) D, E]: queries, then keys, then values."""

    qkv: Linear
    o: Linear
    q_norm: torch.Tensor | None = None
    k_norm: torch.Tensor | None = None
    gate: Linear | None = None
    """[H D, E] of what attention gives."""
    sinks: torch.Tensor | None = None
    position_queries: torch.Tensor | None = None
    """[positions, E]"""
    distances: DistanceScores | None = None


MixerWeights: TypeAlias = AttentionWeights | LatentWeights | RecurrentWeights | ShortConvolutionWeights


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWeights:
    """One block."""

    attn_norm: NormWeights | None
    """None where norms stand on what parts give alone, and where the mixer has none."""
    mixer: MixerWeights | None
    """None in layers that do not mix tokens."""
    ffn_norm: NormWeights | None
    """None in parallel blocks, which share `attn_norm`."""
    feed_forward: DenseWeights | ExpertWeights | None
    attn_out_norm: NormWeights | None = None
    ffn_out_norm: NormWeights | None = None
    entry_norm: NormWeights | None = None
    cross: CrossWeights | None = None
    cross_norm: NormWeights | None = None
    cross_out_norm: NormWeights | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """All weights of one model in the compute precision."""

    embed: torch.Tensor
    positions: torch.Tensor | None
    token_types: torch.Tensor | None
    relative: torch.Tensor | None
    """[buckets, H] of the whole stack."""
    embed_norm: NormWeights | None
    layers: tuple[LayerWeights, ...]
    final_norm: NormWeights | None
    head: Linear | None
    """None when tied to `embed`, and for encoders."""
    tied_bias: torch.Tensor | None
    """[V] added to the scores of a tied head."""
    nbytes: int
    """The encoder's included."""
    classifier: ClassifierWeights | None = None
    stem: tuple[Linear, ...] = ()
    """Of a tower: convolutions over patches that lie apart, as matrices [out, in kernel]."""
    projector: tuple[Linear, ...] = ()
    """Of a tower: what brings its states to the width of a model."""
    encoder: Weights | None = None
    """Its embeddings are these."""


class WeightLoader:
    """Reads a source tensor by tensor; a missing, surplus or misshapen one is an error by name."""

    def __init__(
        self,
        spec: ModelSpec,
        source: WeightSource,
        *,
        dtype: torch.dtype,
        device: torch.device,
        pack: bool = False,
    ) -> None:
        self._spec = spec
        self._source = source
        self._reader = WeightReader(spec, source)
        self._embed: torch.Tensor | None = None
        self._dtype = dtype
        self._device = device
        self._pack = pack
        self._nbytes = 0

    def load(self) -> Weights:
        """All weights. Raises BadModelFile on the first tensor that does not fit the spec."""
        outside = self.outside()
        layers = tuple(self.layer(i) for i in range(self._spec.layers))
        encoder = None if self._spec.encoder is None else self._encoder(outside.embed)
        self._reader.check_all_read()
        return replace(outside, layers=layers, encoder=encoder, nbytes=self._nbytes)

    def _encoder(self, embed: torch.Tensor) -> Weights:
        """The stack beside the decoder, which has the same embeddings."""
        inner = WeightLoader(
            self._spec.reader, self._source, dtype=self._dtype, device=self._device, pack=self._pack
        )
        inner._reader = WeightReader(self._spec.reader, self._source, "encoder.")
        inner._embed = embed
        found = inner.load()
        self._nbytes += found.nbytes
        return found

    def outside(self) -> Weights:
        """What lies outside the layers."""
        spec = self._spec
        learned = spec.learned
        rows = learned.max_positions + learned.offset if learned else 0
        embed = self._matrix("embed", spec.vocab_size, spec.width) if self._embed is None else self._embed
        positions = self._matrix("positions", rows, spec.width) if learned else None
        types = self._matrix("token_types", spec.token_types, spec.width) if spec.token_types else None
        buckets = spec.stack.relative
        relative = None if buckets is None else self._matrix("relative", buckets.buckets, spec.heads)
        embed_norm = self._norm("embed_norm", spec.stack.embedding_norm)
        final_norm = self._norm("final_norm", spec.stack.final_norm)
        bias = spec.head is not None and spec.head.bias
        head = self._linear("head", spec.vocab_size, spec.width, bias=bias) if spec.own_head else None
        tied_bias = self._vector("head.bias", spec.vocab_size) if bias and head is None else None
        self._nbytes += 0 if tied_bias is None else tied_bias.nbytes
        return Weights(
            embed=embed,
            positions=positions,
            token_types=types,
            relative=relative,
            embed_norm=embed_norm,
            layers=(),
            final_norm=final_norm,
            head=head,
            tied_bias=tied_bias,
            classifier=self._classifier(),
            stem=tuple(self._patches(f"stem.{i}", shape) for i, shape in enumerate(spec.stack.stem)),
            projector=tuple(
                self._linear(f"projector.{i}", *shape, bias=True)
                for i, shape in enumerate(spec.stack.projector)
            ),
            nbytes=self._nbytes,
        )

    def _patches(self, name: str, shape: Shape) -> Linear:
        """A convolution whose steps are as long as its kernel."""
        kernel = self._exact(name, *shape).view(shape[0], -1).to(self._dtype)
        return self._finish(kernel, self._vector(name + ".bias", shape[0]))

    def _classifier(self) -> ClassifierWeights | None:
        record, width = self._spec.classifier, self._spec.width
        if record is None:
            return None
        norm = self._norm("classifier.norm", record.norm)
        return ClassifierWeights(
            record=record,
            dense=self._linear("classifier.dense", width, width, bias=record.hidden_bias)
            if record.hidden
            else None,
            norm=None if norm is None else (norm.scale, norm.shift),
            out=self._linear("classifier", record.labels, width, bias=True),
        )

    def layer(self, index: int) -> LayerWeights:
        """One block."""
        block = self._spec.blocks[index]
        prefix = f"layers.{index}."
        mixer, inner = block.mixer, block.feed_forward
        read = None if block.placement == "output" else block.norm
        given = block.norm if block.placement in ("both", "output") else None
        return LayerWeights(
            attn_norm=self._norm(
                prefix + "attn_norm", read if block.mixer_norm and mixer is not None else None
            ),
            mixer=None if mixer is None else self._mixer(prefix, mixer, block.norm),
            ffn_norm=None if block.shared_norm or inner is None else self._norm(prefix + "ffn_norm", read),
            feed_forward=None if inner is None else self._feed_forward(prefix, inner),
            attn_out_norm=None if mixer is None else self._norm(prefix + "attn_out_norm", given),
            ffn_out_norm=None if inner is None else self._norm(prefix + "ffn_out_norm", given),
            entry_norm=self._norm(prefix + "entry_norm", block.norm if block.entry_norm else None),
            cross=None if block.cross is None else self._cross(prefix + "cross.", block.cross),
            cross_norm=None if block.cross is None else self._norm(prefix + "cross_norm", read),
            cross_out_norm=None if block.cross is None else self._norm(prefix + "cross_out_norm", given),
        )

    def _mixer(self, prefix: str, mixer: Mixer, norm: Norm) -> MixerWeights:
        match mixer:
            case Attention():
                return self._attention(prefix, mixer, norm)
            case LatentAttention():
                return self._latent(prefix, mixer)
            case Recurrent():
                return self._recurrent(prefix, mixer)
            case ShortConvolution():
                return self._short_convolution(prefix, mixer)

    def _attention(self, prefix: str, mixer: Attention, norm: Norm) -> AttentionWeights:
        width, rows, normed = self._spec.width, mixer.heads * mixer.head_dim, mixer.qk_norm is not None
        gated, asking = mixer.output_gate, mixer.position_queries
        return AttentionWeights(
            qkv=self._qkv(prefix, mixer),
            o=self._linear(prefix + "o", width, rows, bias=mixer.out_bias),
            q_norm=self._head_norm(prefix + "q_norm", mixer, norm, mixer.heads) if normed else None,
            k_norm=self._head_norm(prefix + "k_norm", mixer, norm, mixer.kv_heads) if normed else None,
            gate=self._linear(prefix + "attn_gate", rows, width, bias=False) if gated else None,
            sinks=self._vector(prefix + "sinks", mixer.heads) if mixer.sinks else None,
            position_queries=None
            if asking is None
            else self._matrix(prefix + "position_queries", asking, width),
            distances=self._distances(prefix, mixer),
        )

    def _distances(self, prefix: str, mixer: Attention) -> DistanceScores | None:
        if not isinstance(mixer.positions, ProjectedDistances):
            return None
        rows = mixer.heads * mixer.head_dim
        return DistanceScores(
            record=mixer.positions,
            matrix=self._exact(prefix + "distance", rows, self._spec.width),
            content=self._exact(prefix + "content_shift", rows).view(mixer.heads, -1),
            distance=self._exact(prefix + "distance_shift", rows).view(mixer.heads, -1),
        )

    def _cross(self, prefix: str, mixer: Attention) -> CrossWeights:
        rows = mixer.heads * mixer.head_dim
        return CrossWeights(
            record=mixer,
            q=self._qkv(prefix, mixer, "q"),
            kv=self._qkv(prefix, mixer, "kv"),
            o=self._linear(prefix + "o", self._spec.width, rows, bias=mixer.out_bias),
        )

    def _feed_forward(self, prefix: str, record: FeedForward | Experts) -> DenseWeights | ExpertWeights:
        if isinstance(record, FeedForward):
            return self._dense(prefix, record)
        return self._experts(prefix, record)

    def _dense(self, prefix: str, record: FeedForward) -> DenseWeights:
        width = self._spec.width
        up, down = (record.width, width), (width, record.width)
        return DenseWeights(
            record=record,
            gate=self._linear(prefix + "gate", *up, bias=record.bias) if record.gated else None,
            up=self._linear(prefix + "up", *up, bias=record.bias),
            down=self._linear(prefix + "down", *down, bias=record.bias),
        )

    def _experts(self, prefix: str, record: Experts) -> ExpertWeights:
        width, expert = self._spec.width, record.expert
        up, down = (expert.width, width), (width, expert.width)
        biased = record.router_bias is not None
        stacks = {
            name: self._stack(f"{prefix}experts.{name}", record.count, *shape, bias=expert.bias)
            for name, shape in (("gate", up), ("up", up), ("down", down))
            if name != "gate" or expert.gated
        }
        return ExpertWeights(
            record=record,
            router=self._exact(prefix + "router", record.count, width),
            router_bias=self._exact(prefix + "router.bias", record.count) if biased else None,
            experts=tuple(
                DenseWeights(
                    record=expert,
                    gate=stacks["gate"][i] if expert.gated else None,
                    up=stacks["up"][i],
                    down=stacks["down"][i],
                )
                for i in range(record.count)
            ),
            shared=None if record.shared is None else self._dense(prefix + "shared.", record.shared),
            shared_gate=self._exact(prefix + "shared_gate", 1, width) if record.shared_gate else None,
        )

    def _stack(self, name: str, count: int, rows: int, columns: int, *, bias: bool) -> list[Linear]:
        """One matrix for each expert."""
        stored = self._reader.stored(name, (count, rows, columns))
        shifts = self._vectors(name + ".bias", count, rows) if bias else [None] * count
        found = []
        for part, shift in zip(stored.slices(), shifts, strict=True):
            weight = self._staged(rows, columns)
            self._fill_from(weight, part.held())
            found.append(self._finish(weight, shift))
        return found

    def _vectors(self, name: str, count: int, size: int) -> list[torch.Tensor]:
        rows = torch.empty(count, size, dtype=self._dtype)
        self._fill(rows, name)
        return list(rows)

    def _exact(self, name: str, *shape: int) -> torch.Tensor:
        """In float32, whatever is computed in."""
        values = torch.from_numpy(dequantize(self._reader.stored(name, shape)))
        self._nbytes += values.nbytes
        return values.to(self._device)

    def _latent(self, prefix: str, mixer: LatentAttention) -> LatentWeights:
        width, heads, rank = self._spec.width, mixer.heads, mixer.kv_rank
        q_rank = mixer.q_rank

        def plain(name: str, rows: int, columns: int) -> Linear:
            return self._linear(prefix + name, rows, columns, bias=False)

        return LatentWeights(
            record=mixer,
            q_down=None if q_rank is None else plain("q_down", q_rank, width),
            q_norm=None if q_rank is None else self._vector(prefix + "q_norm", q_rank),
            q=plain("q", heads * mixer.key_dim, width if q_rank is None else q_rank),
            kv_down=plain("kv_down", rank + mixer.rope.dim, width),
            kv_norm=self._vector(prefix + "kv_norm", rank),
            k_up=self._matrix(prefix + "k_up", heads * mixer.nope_dim, rank).view(heads, -1, rank),
            v_up=self._matrix(prefix + "v_up", heads * mixer.value_dim, rank).view(heads, -1, rank),
            o=plain("o", width, heads * mixer.value_dim),
        )

    def _recurrent(self, prefix: str, mixer: Recurrent) -> RecurrentWeights:
        width, delta = self._spec.width, mixer.rule == "gated_delta"
        sizes = {"z": mixer.inner, "q": mixer.keys, "k": mixer.keys, "v": mixer.inner}
        return RecurrentWeights(
            record=mixer,
            enter=self._rows({prefix + name: sizes[name] for name in ("zqkv" if delta else "zvkq")}, width),
            conv=self._convolution(prefix, mixer.convolved, mixer.conv, bias=mixer.conv_bias),
            step=self._linear(prefix + "step", mixer.heads, width, bias=True),
            rate=self._linear(prefix + "rate", mixer.heads, width, bias=False) if delta else None,
            decay=self._exact(prefix + "decay", mixer.heads),
            skip=None if delta else self._exact(prefix + "skip", mixer.heads),
            inner_norm=self._exact(prefix + "inner_norm", mixer.value_dim if delta else mixer.inner),
            o=self._linear(prefix + "o", width, mixer.inner, bias=False),
        )

    def _short_convolution(self, prefix: str, mixer: ShortConvolution) -> ShortConvolutionWeights:
        width, channels, bias = self._spec.width, mixer.channels, mixer.bias
        return ShortConvolutionWeights(
            record=mixer,
            enter=self._linear(prefix + "in", 3 * channels, width, bias=bias),
            conv=self._convolution(prefix, channels, mixer.conv, bias=bias),
            o=self._linear(prefix + "o", width, channels, bias=bias),
        )

    def _convolution(self, prefix: str, channels: int, tokens: int, *, bias: bool) -> Convolution:
        shift = self._exact(prefix + "conv.bias", channels) if bias else None
        return Convolution(weight=self._exact(prefix + "conv", channels, tokens), bias=shift)

    def _rows(self, parts: dict[str, int], columns: int) -> Linear:
        """One matrix of several, one above the other: name to rows."""
        fused = self._staged(sum(parts.values()), columns)
        start = 0
        for name, rows in parts.items():
            self._fill(fused[start : start + rows], name)
            start += rows
        return self._finish(fused, None)

    def _qkv(self, prefix: str, mixer: Attention, names: str = "qkv") -> Linear:
        """Queries, keys and values as one matrix, interleaved rotary rows brought into halves."""
        counts = [mixer.heads if name == "q" else mixer.kv_heads for name in names]
        total = sum(counts) * mixer.head_dim
        fused = self._staged(total, self._spec.width)
        bias = torch.empty(total, dtype=self._dtype) if mixer.qkv_bias else None
        start = 0
        for name, heads in zip(names, counts, strict=True):
            rows = heads * mixer.head_dim
            turned = isinstance(mixer.positions, Rope) and name != "v"
            order = half_order(heads, mixer.head_dim, mixer.positions) if turned else None  # type: ignore[arg-type]
            self._fill(fused[start : start + rows], prefix + name, order)
            if bias is not None and name == "k" and not mixer.key_bias:
                bias[start : start + rows] = 0
            elif bias is not None:
                self._fill(bias[start : start + rows], f"{prefix}{name}.bias", order)
            start += rows
        return self._finish(fused, bias)

    def _linear(self, name: str, rows: int, columns: int, *, bias: bool) -> Linear:
        weight = self._staged(rows, columns)
        self._fill(weight, name)
        return self._finish(weight, self._vector(name + ".bias", rows) if bias else None)

    def _finish(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
        bias = None if bias is None else bias.to(self._device)
        made = linear(weight.to(self._device), bias, pack=self._pack)
        self._nbytes += weight.nbytes + (0 if bias is None else bias.nbytes)
        return made

    def _staged(self, rows: int, columns: int) -> torch.Tensor:
        """An empty matrix; where it is only packed from, outside the heap, which would keep its holes."""
        if not self._pack:
            return torch.empty(rows, columns, dtype=self._dtype)
        pages = mmap.mmap(-1, rows * columns * self._dtype.itemsize)
        return torch.frombuffer(pages, dtype=self._dtype).view(rows, columns)

    def _matrix(self, name: str, rows: int, columns: int) -> torch.Tensor:
        weight = torch.empty(rows, columns, dtype=self._dtype)
        self._fill(weight, name)
        self._nbytes += weight.nbytes
        return weight.to(self._device)

    def _norm(self, name: str, record: Norm | None) -> NormWeights | None:
        if record is None:
            return None
        width = self._spec.width
        shifted = record.kind == "layer" and record.bias
        shift = self._vector(name + ".bias", width) if shifted else None
        scale = self._vector(name, width) + record.offset if record.offset else self._vector(name, width)
        norm = NormWeights(scale=scale, shift=shift, eps=record.eps, kind=record.kind)
        self._nbytes += norm.scale.nbytes + (0 if shift is None else shift.nbytes)
        return norm

    def _head_norm(self, name: str, mixer: Attention, record: Norm, heads: int) -> torch.Tensor:
        """The scale of one head for all, or of each, as `qk_norm` says."""
        count = 1 if mixer.qk_norm == "head" else heads
        scale = self._vector(name, count * mixer.head_dim) + record.offset
        rope = mixer.positions
        order = half_order(count, mixer.head_dim, rope) if isinstance(rope, Rope) else None
        self._nbytes += scale.nbytes
        return scale if order is None else scale[order]

    def _vector(self, name: str, size: int) -> torch.Tensor:
        vector = torch.empty(size, dtype=self._dtype)
        self._fill(vector, name)
        return vector.to(self._device)

    def _fill(self, target: torch.Tensor, name: str, order: torch.Tensor | None = None) -> None:
        """Writes the tensor's values into `target`, row order[i] to row i if an order is given."""
        self._fill_from(target, self._reader.stored(name, tuple(target.shape)).held(), order)

    def _fill_from(
        self, target: torch.Tensor, stored: StoredTensor, order: torch.Tensor | None = None
    ) -> None:
        if target.dim() == 1:
            values = torch.from_numpy(dequantize(stored))
            target.copy_(values if order is None else values[order])
            return
        places = (
            None if order is None else torch.empty_like(order).index_copy_(0, order, torch.arange(len(order)))
        )
        rows = max(1, _CHUNK_ELEMENTS // max(1, target.shape[1]))
        for start in range(0, target.shape[0], rows):
            stop = min(start + rows, target.shape[0])
            part = torch.from_numpy(dequantize_rows(stored, start, stop))
            if places is None:
                target[start:stop].copy_(part)
            else:
                target[places[start:stop]] = part.to(target.dtype)
