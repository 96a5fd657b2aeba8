"""TorchEncoder: texts to unit vectors with the same program, e.g. BERT and MiniLM."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812

from pentad.errors import Incompatible
from pentad.execution.spec import ModelSpec
from pentad.execution.support import check_supported
from pentad.execution.texts import check_texts, encode_in_batches
from pentad.execution.torch.attention import TextAttention
from pentad.execution.torch.devices import Precision, resolve_device, resolve_dtype
from pentad.execution.torch.linear import packing_available
from pentad.execution.torch.loading import WeightLoader
from pentad.execution.torch.program import Program
from pentad.execution.weights import WeightSource

_BATCH_TOKENS = 8192
"""Tokens computed at once: bounds the activations."""


class TorchEncoder:
    """Mean of the last hidden states of each text, as unit vectors.

    Texts lie end to end without padding, so a vector does not depend on what else is encoded,
    beyond rounding. May be used from several threads.
    """

    def __init__(
        self, spec: ModelSpec, weights: WeightSource, *, dtype: Precision = "float32", device: str = "cpu"
    ) -> None:
        """Loads the weights; see `TorchRunner.load` for the arguments and errors."""
        if spec.causal:
            raise Incompatible(f"model {spec.name!r} generates text; embeddings need an encoder")
        check_supported(spec)
        self._device = resolve_device(device)
        precision = resolve_dtype(dtype, self._device)
        pack = self._device.type == "cpu" and precision == torch.bfloat16 and packing_available()
        with torch.inference_mode():
            loaded = WeightLoader(spec, weights, dtype=precision, device=self._device, pack=pack).load()
        self._program = Program(spec, loaded)
        self.spec = spec
        self.weight_bytes = loaded.nbytes
        learned = spec.context_length if spec.learned is None else spec.learned.max_positions
        self.max_tokens = min(spec.context_length, learned)
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
            return [states.cpu().numpy() for states in self._states(texts)]

    def _encode(self, texts: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            means = torch.stack([states.mean(0) for states in self._states(texts)])
            found: npt.NDArray[np.float32] = F.normalize(means, dim=-1).cpu().numpy()
            return found

    def _states(self, texts: Sequence[Sequence[int]]) -> Sequence[torch.Tensor]:
        lengths = [len(text) for text in texts]
        tokens = np.fromiter((t for text in texts for t in text), np.int32, sum(lengths))
        positions = np.concatenate([np.arange(n, dtype=np.int32) for n in lengths])
        hidden = self._program.hidden(
            torch.from_numpy(tokens).to(self._device),
            torch.from_numpy(positions).to(self._device),
            TextAttention(self.spec, lengths, self._program.rules),
        )
        found: Sequence[torch.Tensor] = hidden.float().split(lengths)
        return found
