"""OpenVINO itself on SmolLM2: the same greedy text, eight bits faster than thirty-two. See scripts/peers."""

from __future__ import annotations

import os
import pathlib
import statistics
import sys
import time

import numpy as np
import pytest

from evidence.plugin import Measure
from pentad.execution.torch.runner import TorchRunner
from pentad.model.backends.openvino_model import OpenVinoModel
from pentad.model.loading import open_model
from torch_generation import engine, generate, prompts

pytestmark = pytest.mark.slow
NEW_TOKENS = 24
TEXTS = 3


@pytest.fixture(scope="module", autouse=True)
def openvino_here() -> None:
    """The packages of scripts/peers openvino, behind those of the tests."""
    home = pathlib.Path(os.environ.get("PENTAD_PEERS", pathlib.Path.home() / ".cache" / "pentad-peers"))
    found = sorted((home / "openvino").glob("lib/python3*/site-packages"))
    if not found:
        pytest.skip("no openvino: run scripts/peers openvino")
    sys.path.append(str(found[0]))


def greedy(model: OpenVinoModel, text: tuple[int, ...], count: int) -> tuple[list[int], list[float]]:
    """Tokens and the seconds of each."""
    tokens, took = list(text), []
    for _ in range(count):
        began_s = time.perf_counter()
        found = model.next_logits(tokens, lambda: False)
        took.append(time.perf_counter() - began_s)
        assert found is not None
        tokens.append(int(found[0].argmax()))
    return tokens[len(text) :], took


def rewritten(path: pathlib.Path, target: pathlib.Path, kind: str) -> pathlib.Path:
    """The file with its matrices in another form, `F16` or `Q8_0`."""
    import gguf

    reader, form = gguf.GGUFReader(str(path)), gguf.GGMLQuantizationType[kind]
    architecture = str(reader.fields["general.architecture"].contents())
    writer = gguf.GGUFWriter(str(target), architecture)
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=inner)
    for tensor in reader.tensors:
        wide = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if wide.ndim == 1 or form == gguf.GGMLQuantizationType.F32:
            writer.add_tensor(tensor.name, wide)
        else:
            writer.add_tensor(tensor.name, gguf.quants.quantize(wide, form), raw_dtype=form)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


@pytest.mark.row("be-openvino", "effect", claims=(1, 2), negative=True)
def test_the_exported_model_writes_another_greedy_text(
    smollm2_path: pathlib.Path, tmp_path: pathlib.Path, measured: Measure
) -> None:
    files = open_model(smollm2_path, name="smollm2")
    texts = prompts(files, TEXTS)
    runner = TorchRunner.load(files.spec, files.weights, num_blocks=96, dtype="float32", threads=1)
    ours = generate(engine(runner), texts, NEW_TOKENS).tokens
    files.close()
    # GenAI's reader of GGUF files takes Q4_1 with an error: logits have a correlation of 0.94 with ours.
    model = OpenVinoModel(smollm2_path, tmp_path, threads=1, precision="f32")
    theirs = [greedy(model, text, NEW_TOKENS)[0] for text in texts]
    same = sum(a == b for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=True))
    measured("tokens that are the same", same / (TEXTS * NEW_TOKENS), at_most=0.95, unit="")


@pytest.mark.row("be-openvino", "effect", claims=(3,))
def test_eight_bits_are_faster_than_thirty_two(
    smollm2_path: pathlib.Path, tmp_path: pathlib.Path, measured: Measure
) -> None:
    seconds = {}
    # It reads no F32; sixteen bits are computed in thirty-two.
    for kind in ("F16", "Q8_0"):
        path = rewritten(smollm2_path, tmp_path / f"{kind}.gguf", kind)
        model = OpenVinoModel(path, tmp_path, threads=1, precision="f32")
        _, took = greedy(model, (504, 3575, 282, 4649, 314), 12)
        seconds[kind] = statistics.median(took[2:])
        model.close()
    measured("speed of int8 over FP32", seconds["F16"] / seconds["Q8_0"], at_least=1.0, unit="x")
