"""TorchEncoder and TorchScorer: texts to unit vectors or to scores with the same program."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812

from pentad.errors import Incompatible
from pentad.execution.classifier import Pooling
from pentad.execution.spec import ModelSpec
from pentad.execution.support import check_supported
from pentad.execution.texts import check_texts, encode_in_batches, text_batches
from pentad.execution.torch.attention import PaddedAttention, TextAttention, sights
from pentad.execution.torch.classifier import pooled
from pentad.execution.torch.devices import Precision, resolve_device, resolve_dtype
from pentad.execution.torch.linear import packing_available
from pentad.execution.torch.loading import WeightLoader
from pentad.execution.torch.program import Program
from pentad.execution.weights import WeightSource

_BATCH_TOKENS = 8192
"""Tokens computed at once: bounds the activations."""


class TextProgram:
    """The last hidden states of whole texts.

    Texts lie end to end without padding, so a text's states do not depend on what else is computed, beyond
    rounding. May be used from several threads.
    """

    def __init__(
        self,
        spec: ModelSpec,
        weights: WeightSource,
        *,
        dtype: Precision,
        device: str,
        padded: bool = False,
    ) -> None:
        """Loads the weights; see `TorchRunner.load` for the other arguments and errors.

        Args:
            padded: whether texts are filled up to the longest of a batch, so that attention is one call a
                layer and not one for each length. Models whose attention has rules or windows are never
                padded.
        """
        check_supported(spec)
        self._device = resolve_device(device)
        precision = resolve_dtype(dtype, self._device)
        pack = self._device.type == "cpu" and precision == torch.bfloat16 and packing_available()
        with torch.inference_mode():
            self.weights = WeightLoader(spec, weights, dtype=precision, device=self._device, pack=pack).load()
        self._program = Program(spec, self.weights)
        self.spec = spec
        plain = not spec.causal and self._program.rules is None
        self.padded = padded and plain and not any(sight.limited for sight in sights(spec))
        learned = spec.context_length if spec.learned is None else spec.learned.max_positions
        self.max_tokens = min(spec.context_length, learned)

    def states(
        self, texts: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None = None
    ) -> Sequence[torch.Tensor]:
        """Those of each text [T, E], in the precision that is computed in.

        Args:
            types: of each text's tokens; None, or in a model that tells none apart: all are of the first.
        """
        lengths = [len(text) for text in texts]
        if self.padded and len(set(lengths)) > 1:
            return self._padded(texts, lengths, types)
        positions = np.concatenate([np.arange(n, dtype=np.int32) for n in lengths])
        hidden = self._program.hidden(
            self._row(texts),
            torch.from_numpy(positions).to(self._device),
            TextAttention(self.spec, lengths, self._program.rules),
            types=None if types is None or self.spec.token_types < 2 else self._row(types),
        )
        found: Sequence[torch.Tensor] = hidden.split(lengths)
        return found

    def _padded(
        self,
        texts: Sequence[Sequence[int]],
        lengths: Sequence[int],
        types: Sequence[Sequence[int]] | None,
    ) -> Sequence[torch.Tensor]:
        """The same, computed as a rectangle [B, T] whose padding no text attends to."""
        count, width = len(texts), max(lengths)

        def filled(rows: Sequence[Sequence[int]]) -> torch.Tensor:
            table = np.zeros((count, width), np.int32)
            for i, row in enumerate(rows):
                table[i, : len(row)] = row
            return torch.from_numpy(table.ravel()).to(self._device)

        hidden = self._program.hidden(
            filled(texts),
            torch.arange(width, dtype=torch.int32, device=self._device).repeat(count),
            PaddedAttention(self.spec, lengths, self._device),
            types=None if types is None or self.spec.token_types < 2 else filled(types),
        )
        rows = hidden.unflatten(0, (count, width))
        return [rows[i, :length] for i, length in enumerate(lengths)]

    def _row(self, numbers: Sequence[Sequence[int]]) -> torch.Tensor:
        flat = np.fromiter((n for text in numbers for n in text), np.int32, sum(map(len, numbers)))
        return torch.from_numpy(flat).to(self._device)


class TorchEncoder:
    """Pooled last hidden states of each text, as unit vectors; see `TextProgram`."""

    def __init__(
        self,
        spec: ModelSpec,
        weights: WeightSource,
        *,
        pooling: Pooling = "mean",
        dtype: Precision = "float32",
        device: str = "cpu",
        padded: bool = False,
    ) -> None:
        """Loads the weights; see `TextProgram` for `padded`, `TorchRunner.load` for the errors."""
        if spec.head is not None:
            raise Incompatible(f"model {spec.name!r} generates text; embeddings need an encoder")
        self._texts = TextProgram(spec, weights, dtype=dtype, device=device, padded=padded)
        self._pooling = pooling
        self.spec = spec
        self.weight_bytes = self._texts.weights.nbytes
        self.max_tokens = self._texts.max_tokens
        """The longest text, special tokens included."""

    @property
    def dimensions(self) -> int:
        return self.spec.width

    def encode(self, texts: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """One unit vector per text: [B, E].

        Args:
            texts: token ids of each text, special tokens included.

        Raises:
            ContextLengthExceeded: a text is longer than the model's positions.
            InvalidRequest: a text without tokens.
        """
        return encode_in_batches(
            self.spec, texts, self._encode, max_tokens=self.max_tokens, batch_tokens=_BATCH_TOKENS
        )

    def states(self, texts: Sequence[Sequence[int]]) -> list[npt.NDArray[np.float32]]:
        """The last hidden states of each text: [T, E]. Raises what `encode` does."""
        check_texts(texts, model=self.spec.name, max_tokens=self.max_tokens)
        with torch.inference_mode():
            return [states.float().cpu().numpy() for states in self._texts.states(texts)]

    def _encode(self, texts: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            states = [text.float() for text in self._texts.states(texts)]
            found: npt.NDArray[np.float32] = F.normalize(pooled(states, self._pooling), dim=-1).cpu().numpy()
            return found


class TorchScorer:
    """What a model's classifier says of each text; see `TextProgram`."""

    def __init__(
        self, spec: ModelSpec, weights: WeightSource, *, dtype: Precision = "float32", device: str = "cpu"
    ) -> None:
        """Loads the weights; see `TorchRunner.load` for the errors."""
        if spec.classifier is None:
            raise Incompatible(f"model {spec.name!r} has no classifier; scores need one")
        self._texts = TextProgram(spec, weights, dtype=dtype, device=device)
        self._record = spec.classifier
        self.spec = spec
        self.weight_bytes = self._texts.weights.nbytes
        self.max_tokens = self._texts.max_tokens
        """The longest text, special tokens included."""

    def score(
        self, texts: Sequence[Sequence[int]], types: Sequence[Sequence[int]]
    ) -> npt.NDArray[np.float32]:
        """The scores of each text, one for each label: [B, labels].

        Args:
            texts: token ids of each text, special tokens included.
            types: of each of these tokens; models without types take no notice.

        Raises:
            ContextLengthExceeded: a text is longer than the model's positions.
            InvalidRequest: a text without tokens.
        """
        check_texts(texts, model=self.spec.name, max_tokens=self.max_tokens)
        scores = np.empty((len(texts), self._record.labels), np.float32)
        classifier = self._texts.weights.classifier
        assert classifier is not None
        with torch.inference_mode():
            for batch in text_batches(texts, _BATCH_TOKENS):
                states = self._texts.states([texts[i] for i in batch], [types[i] for i in batch])
                scores[batch] = classifier(pooled(states, self._record.pooling)).float().cpu().numpy()
        return scores
