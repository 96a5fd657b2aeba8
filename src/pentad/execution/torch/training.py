"""Training on PyTorch: the same program with gradients, AdamW, and checkpoints that a kill cannot break.

The data of a step depend on the seed and the step's number alone, so a training that goes on at a
checkpoint sees what it would have seen.
"""

from __future__ import annotations

import math
import os
import pathlib
import time
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812

from pentad.errors import BadModelFile, Incompatible
from pentad.execution.quant import dequantize
from pentad.execution.spec import Attention, ModelSpec, Rope
from pentad.execution.torch.attention import TextAttention
from pentad.execution.torch.linear import Dense, Linear
from pentad.execution.torch.loading import WeightLoader, Weights
from pentad.execution.torch.program import Program
from pentad.execution.torch.rope import half_order
from pentad.execution.training import Schedule, Shape, Tell, Trained, TrainRecipe, TrainStep
from pentad.execution.weights import WeightSource

_CPU = torch.device("cpu")
_HELD_OUT = 0.05
"""Share of the text, at its end, that is never trained on."""
_HELD_OUT_WINDOWS = 16
"""At most so many windows of it are looked at."""
_CLIP = 1.0
"""Longest gradient of all numbers together."""
_BETAS = (0.9, 0.95)
_CHECKPOINT = "checkpoint.npz"
_CHECKPOINT_PAUSE_S = 300.0
"""A checkpoint is written once this has passed, however many steps are still to go until the next."""

Tensors = Mapping[str, torch.Tensor]


class Assembly(WeightLoader):
    """Puts a program's weights together out of canonical tensors, so that gradients reach these."""

    def __init__(self, spec: ModelSpec, source: WeightSource, tensors: Tensors) -> None:
        super().__init__(spec, source, dtype=torch.float32, device=_CPU)
        self._tensors = tensors

    def _qkv(self, prefix: str, mixer: Attention, names: str = "qkv") -> Linear:
        weights = [self._turned(prefix + name, name, mixer) for name in names]
        biases = (
            [self._turned(f"{prefix}{name}.bias", name, mixer) for name in names] if mixer.qkv_bias else None
        )
        return Dense(torch.cat(weights), None if biases is None else torch.cat(biases))

    def _turned(self, name: str, kind: str, mixer: Attention) -> torch.Tensor:
        """The rows of a matrix, interleaved rotary ones brought into halves."""
        tensor = self._taken(name)
        heads = mixer.heads if kind == "q" else mixer.kv_heads
        if kind == "v" or not isinstance(mixer.positions, Rope):
            return tensor
        order = half_order(heads, mixer.head_dim, mixer.positions)
        return tensor if order is None else tensor[order]

    def _linear(
        self,
        name: str,
        rows: int,  # noqa: ARG002
        columns: int,  # noqa: ARG002
        *,
        bias: bool,
    ) -> Linear:
        return Dense(self._taken(name), self._taken(name + ".bias") if bias else None)

    def _stack(
        self,
        name: str,
        count: int,
        rows: int,
        columns: int,  # noqa: ARG002
        *,
        bias: bool,
    ) -> list[Linear]:
        shifts = self._vectors(name + ".bias", count, rows) if bias else [None] * count
        return [Dense(weight, shift) for weight, shift in zip(self._taken(name), shifts, strict=True)]

    def _vectors(self, name: str, count: int, size: int) -> list[torch.Tensor]:  # noqa: ARG002
        return list(self._taken(name))

    def _exact(self, name: str, *shape: int) -> torch.Tensor:  # noqa: ARG002
        return self._taken(name)

    def _matrix(self, name: str, rows: int, columns: int) -> torch.Tensor:  # noqa: ARG002
        return self._taken(name)

    def _vector(self, name: str, size: int) -> torch.Tensor:  # noqa: ARG002
        return self._taken(name)

    def _taken(self, name: str) -> torch.Tensor:
        self._reader.stored(name, tuple(self._tensors[name].shape))
        return self._tensors[name]


class Student:
    """A model as a function of its weights."""

    def __init__(self, spec: ModelSpec, source: WeightSource) -> None:
        """Reads all weights in float32. Raises Incompatible for a model that does not generate text."""
        if not spec.causal:
            raise Incompatible(f"model {spec.name!r} does not generate text, so it cannot be trained to")
        if spec.encoder is not None:
            raise Incompatible(f"model {spec.name!r} has an encoder, which training does not know yet")
        self.spec = spec
        self._source = source
        self.tensors = {
            name: torch.from_numpy(np.array(dequantize(source.tensor(name)))) for name in source.names()
        }

    def logits(self, windows: torch.Tensor, changed: Tensors) -> torch.Tensor:
        """Logits [B (T - 1), V] of windows [B, T]: of each token but the last ones.

        Args:
            changed: weights that stand in place of the model's own, by canonical name.
        """
        program, hidden = self._run(windows, changed)
        return program.logits(hidden[:, :-1].reshape(-1, hidden.shape[-1]))

    def continued(
        self, windows: torch.Tensor, changed: Tensors, known: int, dice: torch.Generator
    ) -> torch.Tensor:
        """Windows [B, T] whose tokens behind the first `known` the model draws itself, without gradients.

        Cost: a run of the texts so far for each token.
        """
        texts = windows[:, :known]
        with torch.no_grad():
            while texts.shape[1] < windows.shape[1]:
                program, hidden = self._run(texts, changed)
                chances = program.logits(hidden[:, -1]).softmax(-1)
                texts = torch.cat((texts, torch.multinomial(chances, 1, generator=dice)), 1)
        return texts

    def _run(self, windows: torch.Tensor, changed: Tensors) -> tuple[Program, torch.Tensor]:
        """The program, and the hidden states [B, T, E] of windows [B, T]."""
        texts, length = windows.shape
        program = Program(self.spec, self._assembled({**self.tensors, **changed}))
        hidden = program.hidden(
            windows.reshape(-1),
            torch.arange(length).repeat(texts),
            TextAttention(self.spec, [length] * texts, program.rules),
        )
        return program, hidden.view(texts, length, -1)

    def _assembled(self, tensors: Tensors) -> Weights:
        return Assembly(self.spec, self._source, tensors).load()


def train(
    spec: ModelSpec,
    source: WeightSource,
    recipe: TrainRecipe,
    tokens: Sequence[int],
    schedule: Schedule,
    *,
    folder: str,
    teacher: tuple[ModelSpec, WeightSource] | None = None,
    tell: Tell,
) -> Trained:
    """See `pentad.execution.training.Trainer`. Memory: four copies of what learns, in float32."""
    seen, held_out = _parts(tokens, schedule)
    student = Student(spec, source)
    master = None if teacher is None else Student(*teacher)
    dice = torch.Generator().manual_seed(schedule.seed)

    def draw(shape: Shape) -> torch.Tensor:
        return torch.randn(shape, generator=dice)

    learnt = recipe.parameters(spec, student.tensors, draw)
    if not learnt:
        raise Incompatible(
            f"recipe {recipe.name!r} finds nothing to learn in {spec.name!r}", hint="choose another recipe"
        )
    optimizer = torch.optim.AdamW(learnt.values(), lr=recipe.learning_rate, betas=_BETAS, weight_decay=0.0)
    checkpoint = _Checkpoint(pathlib.Path(folder) / _CHECKPOINT, learnt, optimizer)
    before = _loss(student, held_out, {})
    losses = checkpoint.restore()
    for parameter in learnt.values():
        parameter.requires_grad_(True)
    saved_s = time.monotonic()
    try:
        for step in range(len(losses), schedule.steps):
            tell(step, schedule.steps)
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * _rate(step, schedule)
            changed = recipe.weights(student.tensors, learnt)
            windows = _sampled(student, changed, recipe, _windows(seen, schedule, step), schedule, step)
            loss = recipe.loss(
                TrainStep(
                    logits=student.logits(windows, changed),
                    targets=windows[:, 1:].reshape(-1),
                    teacher=_taught(master, windows),
                )
            )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learnt.values(), _CLIP)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            due = len(losses) % schedule.checkpoint_steps == 0
            if due or time.monotonic() - saved_s > _CHECKPOINT_PAUSE_S:
                checkpoint.write(losses)
                saved_s = time.monotonic()
    except KeyboardInterrupt:
        checkpoint.write(losses)
        raise
    tell(schedule.steps, schedule.steps)
    with torch.no_grad():
        changed = recipe.weights(student.tensors, learnt)
        after = _loss(student, held_out, changed)
    return Trained(
        weights={name: value.detach().numpy() for name, value in changed.items()},
        loss_before=before,
        loss_after=after,
        losses=tuple(losses),
    )


def _parts(tokens: Sequence[int], schedule: Schedule) -> tuple[torch.Tensor, torch.Tensor]:
    """What is trained on, and the windows [W, T] that are held out. Raises Incompatible for a short text."""
    length = schedule.window_tokens
    every = torch.tensor(tokens, dtype=torch.long)
    held = max(length, int(len(every) * _HELD_OUT))
    if len(every) - held < length:
        raise Incompatible(
            f"the text has {len(every)} tokens; a window of {length} to train on and one held out need "
            f"{2 * length}",
            hint="give a longer text or set --window-tokens lower",
            param="data",
        )
    windows = every[-held:].unfold(0, length, length)[:_HELD_OUT_WINDOWS]
    return every[:-held], windows


def _windows(tokens: torch.Tensor, schedule: Schedule, step: int) -> torch.Tensor:
    """The windows [B, T] of a step."""
    dice = np.random.default_rng((schedule.seed, step))
    starts = dice.integers(0, len(tokens) - schedule.window_tokens + 1, schedule.batch)
    return torch.stack([tokens[at : at + schedule.window_tokens] for at in starts])


def _sampled(
    student: Student,
    changed: Tensors,
    recipe: TrainRecipe,
    windows: torch.Tensor,
    schedule: Schedule,
    step: int,
) -> torch.Tensor:
    """The windows of a step, gone on with by the student where the recipe wants that of this step.

    What is drawn depends on the seed, the step and the weights alone, as the windows do.
    """
    if recipe.sampled_share == 0:
        return windows
    chance = np.random.default_rng((schedule.seed, step, 1))
    if chance.random() >= recipe.sampled_share:
        return windows
    dice = torch.Generator().manual_seed(int(chance.integers(2**62)))
    return student.continued(windows, changed, max(1, windows.shape[1] // 2), dice)


def _rate(step: int, schedule: Schedule) -> float:
    """Share of the highest learning rate, above 0 to 1."""
    rising = max(1, round(schedule.warmup * schedule.steps))
    return min(1.0, (step + 1) / rising) * 0.5 * (1 + math.cos(math.pi * step / schedule.steps))


def _taught(master: Student | None, windows: torch.Tensor) -> torch.Tensor | None:
    if master is None:
        return None
    with torch.no_grad():
        return master.logits(windows, {})


def _loss(student: Student, windows: torch.Tensor, changed: Tensors) -> float:
    """Nats per token of the windows."""
    with torch.no_grad():
        parts = [F.cross_entropy(student.logits(one[None], changed), one[1:]).item() for one in windows]
    return math.fsum(parts) / len(parts)


class _Checkpoint:
    """What has been learnt, the optimizer's moments and the losses so far: one file, whole or absent."""

    def __init__(
        self, path: pathlib.Path, learnt: Mapping[str, torch.Tensor], optimizer: torch.optim.AdamW
    ) -> None:
        self._path = path
        self._learnt = learnt
        self._optimizer = optimizer

    def write(self, losses: Sequence[float]) -> None:
        """Replaces the last one."""
        arrays: dict[str, npt.NDArray[np.generic]] = {"losses": np.array(losses, np.float64)}
        for name, parameter in self._learnt.items():
            state = self._optimizer.state.get(parameter, {})
            arrays[f"learnt/{name}"] = parameter.detach().numpy()
            for moment in ("exp_avg", "exp_avg_sq") if state else ():
                arrays[f"{moment}/{name}"] = state[moment].numpy()
        partial = self._path.with_suffix(".partial")
        with partial.open("wb") as out:
            np.savez(out, **arrays)  # type: ignore[arg-type]
            out.flush()
            os.fsync(out.fileno())
        partial.replace(self._path)

    def restore(self) -> list[float]:
        """Takes up the last one; the losses so far, none where there is no checkpoint."""
        if not self._path.exists():
            return []
        try:
            with np.load(self._path, allow_pickle=False) as arrays, torch.no_grad():
                losses: list[float] = arrays["losses"].tolist()
                for name, parameter in self._learnt.items():
                    parameter.copy_(torch.from_numpy(arrays[f"learnt/{name}"]))
                    if f"exp_avg/{name}" in arrays:
                        self._optimizer.state[parameter] = {
                            "step": torch.tensor(float(len(losses))),
                            "exp_avg": torch.from_numpy(arrays[f"exp_avg/{name}"]),
                            "exp_avg_sq": torch.from_numpy(arrays[f"exp_avg_sq/{name}"]),
                        }
                return losses
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise BadModelFile(
                f"the checkpoint {str(self._path)!r} cannot be read: {error}", hint="remove it to begin anew"
            ) from error
