"""Measures how far each family is from the reference on tiny random models: tests/data/family_parity.json.

.venv/bin/python tests/family_parity.py [NAME ...]     all cases, or those whose names contain one of these

The same cases are held to their bounds by tests/parity; the record is what docs/families.md shows.
"""

from __future__ import annotations

import json
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

HERE = pathlib.Path(__file__).parent
RECORD = HERE / "data" / "family_parity.json"
sys.path[:0] = [str(HERE), str(HERE / "parity")]

import test_expert_families  # noqa: E402
import test_images  # noqa: E402
import test_native_latent  # noqa: E402
import test_state_families  # noqa: E402
import test_t5_encoders  # noqa: E402

import encoder_models  # noqa: E402
import expert_models  # noqa: E402
import family_cases  # noqa: E402
import recent_cases  # noqa: E402
from encoder_decoders import GGUF_KINDS, GGUF_SIZES, MODELS, START, Part, build, draw, step  # noqa: E402
from encoder_decoders import reference as translated  # noqa: E402
from encoder_decoders import write_gguf as write_pair_gguf  # noqa: E402
from family_files import Gguf, V, tiny_model, write_folder, write_gguf  # noqa: E402
from image_models import seeing  # noqa: E402
from native_support import divergence  # noqa: E402
from pentad.execution.native.encoder import NativeEncoder  # noqa: E402
from pentad.execution.native.runner import NativeRunner  # noqa: E402
from pentad.execution.torch.encoder import TorchEncoder  # noqa: E402
from pentad.execution.torch.runner import TorchRunner  # noqa: E402
from pentad.model.images.encoder import image_encoder_of  # noqa: E402
from pentad.model.loading import open_model  # noqa: E402
from ragged_batches import ragged  # noqa: E402

CASES = {**family_cases.CASES, **recent_cases.CASES}
Files = tuple[Any, Any]
"""Spec and weights."""
Found = dict[str, Any]
Measured = Callable[[pathlib.Path], Found]
TOKENS = 70


def cases() -> dict[str, Measured]:
    """Name to what measures it, in a folder of its own."""
    found: dict[str, Measured] = {name: partial(_of_case, name) for name in CASES}
    found |= {f"{n} (experts)": partial(_of_tiny, t) for n, t in test_expert_families.FAMILIES.items()}
    found |= {
        f"deepseek {n}": partial(_of_tiny, test_native_latent.wide(n), change=test_native_latent.split_ups)
        for n in test_native_latent.published.CASES
    }
    found |= {
        f"{n} (states)": partial(_of_tiny, t, states=True) for n, t in test_state_families.FAMILIES.items()
    }
    found |= {f"{n} (encoder)": partial(_of_encoder, t) for n, t in encoder_models.ENCODERS.items()}
    found |= {f"{n} (encoder)": partial(_of_t5, n) for n in test_t5_encoders.KINDS}
    found |= {f"{n} (images)": partial(_of_images, n) for n in ("idefics3", "smolvlm")}
    return found | {f"{n} (pair)": partial(_of_pair, n) for n in MODELS}


def _of_case(name: str, folder: pathlib.Path) -> Found:
    case = CASES[name]
    model = tiny_model(case)
    write_folder(case, model, folder)
    files = open_model(folder)
    gguf: Files | str = case.gguf if isinstance(case.gguf, str) else ""
    if isinstance(case.gguf, Gguf):
        opened = open_model(write_gguf(case, model, folder / "m.gguf"))
        gguf = (opened.spec, opened.weights)
    return _decoder(model, (files.spec, files.weights), gguf, V)


def _of_tiny(tiny: Any, folder: pathlib.Path, change: Any = None, states: bool = False) -> Found:
    model = tiny.build()
    files = expert_models.open_folder(expert_models.save_folder(model, folder))
    gguf: Files | str = "its layout of states is not read yet"
    if not states:
        gguf = expert_models.open_gguf(expert_models.save_gguf(model, tiny, folder, change=change))
    return _decoder(model, files, gguf, expert_models.V, states=states)


def _decoder(model: Any, folder: Files, gguf: Files | str, vocab: int, *, states: bool = False) -> Found:
    tokens = np.random.default_rng(3).integers(0, vocab, TOKENS).tolist()
    expected = expert_models.reference(model, tokens)

    def off(files: Files) -> float:
        runner = TorchRunner.load(*files, num_blocks=16, dtype="float32")
        return float(np.abs(runner.logits(_batch(tokens, states=states)) - expected).max())

    part = NativeRunner.supports(*folder)
    native: float | str = part or ""
    if part is None:
        runner = NativeRunner.load(*folder, num_blocks=16, threads=1)
        apart = divergence(expected, runner.logits(_batch(tokens, states=states)))
        native = float(np.median(apart) if states else apart.mean())
        runner.close()
    return _found(off, folder, gguf, native, "logits")


def _found(
    off: Callable[[Files], float], folder: Files, gguf: Files | str, native: float | str, of: str
) -> Found:
    """The line of a case, from how far each of its files is off."""
    return {
        "family": folder[0].family,
        "folder": off(folder),
        "gguf": gguf if isinstance(gguf, str) else off(gguf),
        "native": native,
        "of": of,
    }


def _batch(tokens: list[int], *, states: bool) -> Any:
    import dataclasses

    batch = ragged([(tokens, 0, range(5))])
    return dataclasses.replace(batch, state_rows=batch.block_tables[:, 0]) if states else batch


def _of_encoder(tiny: Any, folder: pathlib.Path) -> Found:
    model = tiny.build(initializer_range=0.1)
    model.save_pretrained(folder)
    files = expert_models.open_folder(folder)
    gguf: Files | str = "GGUF has no such architecture"
    if tiny.arch is not None:
        gguf = expert_models.open_gguf(encoder_models.save_gguf(model, tiny, folder))
    return _encoder(model, files, gguf, encoder_models.V)


def _of_t5(kind: str, folder: pathlib.Path) -> Found:
    model = test_t5_encoders.build(kind, "EncoderModel", folder)
    return _encoder(
        model, expert_models.open_folder(folder), "held to the folder by a test", test_t5_encoders.V
    )


def _of_pair(kind: str, folder: pathlib.Path) -> Found:
    in_gguf = kind in GGUF_KINDS
    model = build(kind, folder, **GGUF_SIZES if in_gguf else {})
    files = expert_models.open_folder(folder)
    rng = np.random.default_rng(3)
    source, text = draw(rng, 37), [START, *draw(rng, 40)]
    batch = step([Part(source=source, new=text, cached=0, source_blocks=[9, 3, 4], blocks=[11, 0, 7])])

    def off(files: Files) -> float:
        runner = TorchRunner.load(*files, num_blocks=64, dtype="float32")
        return float(np.abs(runner.logits(batch) - translated(model, source, text)).max())

    gguf: Files | str = "no file of one was tried"
    if in_gguf:
        gguf = expert_models.open_gguf(write_pair_gguf(model, folder))
    return _found(off, files, gguf, NativeRunner.supports(*files) or "", "logits")


def _of_images(kind: str, folder: pathlib.Path) -> Found:
    """Of a prompt with an image among its words."""
    content = test_images.CONTENTS["one"]
    model = seeing(folder, kind=kind)
    files = open_model(folder)
    encoder = image_encoder_of(files)
    assert encoder is not None
    expected = model.logits(model.inputs(*content))
    prompt = test_images.prepared(files, encoder, content)
    runner = TorchRunner.load(files.spec, files.weights, num_blocks=64, threads=1, dtype="float32")
    off = float(np.abs(test_images.logits(runner, prompt) - expected).max())
    native: float | str = NativeRunner.supports(files.spec, files.weights) or ""
    if not native:
        kernels = NativeRunner.load(files.spec, files.weights, num_blocks=64, threads=1)
        native = float(divergence(expected, test_images.logits(kernels, prompt)).mean())
        kernels.close()
    return {
        "family": files.spec.family,
        "folder": off,
        "gguf": "no such file is known",
        "native": native,
        "of": "logits",
    }


def _encoder(model: Any, folder: Files, gguf: Files | str, vocab: int) -> Found:
    text = np.random.default_rng(3).integers(4, vocab, TOKENS).tolist()
    with torch.inference_mode():
        expected = model(torch.tensor([text])).last_hidden_state[0].numpy()

    def off(files: Files) -> float:
        return float(np.abs(TorchEncoder(*files).states([text])[0] - expected).max())

    part = NativeEncoder.supports(*folder)
    native: float | str = part or ""
    if part is None:
        ours, theirs = NativeEncoder(*folder).encode([text])[0], TorchEncoder(*folder).encode([text])[0]
        native = float(1 - ours @ theirs)
    return _found(off, folder, gguf, native, "states")


def measured(names: list[str]) -> Iterator[tuple[str, Found]]:
    """Each case, rounded to two digits."""
    for name, measure in cases().items():
        if names and not any(part in name for part in names):
            continue
        with tempfile.TemporaryDirectory() as folder:
            found = measure(pathlib.Path(folder))
        yield name, {k: float(f"{v:.2g}") if isinstance(v, float) else v for k, v in found.items()}


def main() -> None:
    kept = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    for name, found in measured(sys.argv[1:]):
        print(name, found, flush=True)
        kept[name] = found
    known = cases()
    RECORD.write_text(json.dumps({n: kept[n] for n in known if n in kept}, indent=1) + "\n")


if __name__ == "__main__":
    main()
