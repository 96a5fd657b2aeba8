"""A package that adds a model family, as docs/families.md tells it: installed, known, loaded and computed."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import torch

from family_files import NARROW, Case, tiny_model, write_folder

ROOT = pathlib.Path(__file__).parent.parent.parent
PACKAGE = ROOT / "examples" / "family_package"
TOLERANCE = 1e-3
TOKENS = [5, 17, 3, 90, 41, 41, 8]
COMPUTE = """
import json, sys
from pentad import registry
from pentad.execution.torch.runner import TorchRunner
from pentad.model.loading import open_model
from ragged_batches import ragged

folder, tokens = sys.argv[1], json.loads(sys.argv[2])
assert registry.known("model_family")[-1] == "arcee"
files = open_model(folder)
runner = TorchRunner.load(files.spec, files.weights, num_blocks=8, dtype="float32")
logits = runner.logits(ragged([(tokens, 0, [1])]))
print(json.dumps({"family": files.spec.family, "logits": logits.tolist()}))
"""


def test_the_page_s_package_installs_and_a_model_of_its_family_computes_what_the_reference_does(
    tmp_path: pathlib.Path,
) -> None:
    site, folder = tmp_path / "site", tmp_path / "tiny"
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--target", str(site), str(PACKAGE)], check=True, timeout=300)
    case = Case(kind="arcee", config=NARROW)
    folder.mkdir()
    model = tiny_model(case)
    write_folder(case, model, folder)
    with torch.inference_mode():
        expected = model(torch.tensor([TOKENS])).logits[0].float().numpy()
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(site), str(ROOT / "tests")))}
    command = [sys.executable, "-c", COMPUTE, str(folder), json.dumps(TOKENS)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["family"] == "arcee"
    np.testing.assert_allclose(found["logits"], expected, atol=TOLERANCE)


def test_the_page_shows_the_package_as_it_is() -> None:
    page = (ROOT / "docs" / "families.md").read_text("utf-8")
    for file in ("pyproject.toml", "src/pentad_arcee/__init__.py"):
        assert (PACKAGE / file).read_text("utf-8") in page
