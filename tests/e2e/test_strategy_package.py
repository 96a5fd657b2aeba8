"""A package that adds a strategy: installed, listed and chosen like one of ours."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

PACKAGE = pathlib.Path(__file__).parent.parent.parent / "examples" / "strategy_package"


def test_the_example_package_installs_and_its_router_can_be_chosen(tmp_path: pathlib.Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--target", str(tmp_path), str(PACKAGE)], check=True, timeout=300)
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def pentad(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from pentad.application.cli import main; main()", *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)

    told = json.loads(pentad("strategies", "router", "longest-context", "--json").stdout)
    assert told["origin"] == "pentad_longest:LongestContext"
    assert [option["name"] for option in told["options"]] == ["least_tokens"]
    shown = pentad("config", "show", "--router", "longest-context:least_tokens=4096", "--resolved")
    assert "longest-context:least_tokens=4096" in shown.stdout, shown.stderr
    refused = pentad("config", "show", "--router", "longest-context:least_token=1")
    assert refused.returncode == 2
    assert "did you mean 'least_tokens'?" in refused.stderr
