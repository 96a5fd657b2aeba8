"""Tool calls of a model behind Pentad and behind llama.cpp's server: the same file, cases, prompts and judge.

    python scripts/tool_calls_beside.py MODEL [MODEL ...] --data FOLDER [--limit N] [--out FILE]
                                        [--record FILE]

MODEL is a stored model or a GGUF file. The suites are `bfcl-simple` and `bfcl-multiple`; both servers get
the same messages and functions, and llama.cpp reads and constrains calls by its own tool handling (its
default). Eight cases at once, greedy. `--out` keeps a line per case: the same command again goes on.
Whoever wants another build than the newest of this CPU names it with --cpu; scripts/peers installs them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from pentad.agent.evaluation.base import CaseSource
from pentad.agent.evaluation.results import CaseResult, Contender, Key, ResultFile
from pentad.application.bench import facts
from pentad.application.bench.servers import llama_server
from pentad.application.cli.agents import serving_only
from pentad.application.config import RemoteBackend, Settings
from pentad.application.evaluation import Order, evaluate
from pentad.model.intervals import bootstrap, wilson
from pentad.model.store import ModelStore

SUITES = ("bfcl-simple", "bfcl-multiple")
CONTEXT = 8192
AT_ONCE = 8


class Kept(ResultFile):
    """Results that can be listed by contender."""

    def by_model(self, suite: str, model: str) -> dict[str, CaseResult]:
        """Case to result."""
        return {result.case: result for result in self._results.values() if _is(result.key, suite, model)}


def _is(key: Key, suite: str, model: str) -> bool:
    return key[0] == suite and key[3] == model


def parseable(result: CaseResult) -> bool:
    """Whether what the answer held of calls was read: a JSON object of arguments, or no call at all."""
    return not result.about.startswith("the arguments are no JSON")


def compared(suite: str, ours: dict[str, CaseResult], theirs: dict[str, CaseResult]) -> dict[str, Any]:
    """The line of one suite and model. Both have the same cases."""
    cases = sorted(ours.keys() & theirs.keys())
    gains = [100.0 * (ours[case].success - theirs[case].success) for case in cases]
    line: dict[str, Any] = {"suite": suite, "cases": len(cases)}
    for name, side in (("pentad", ours), ("llama.cpp", theirs)):
        right = sum(side[case].success for case in cases)
        low, high = wilson(right, len(cases))
        line[name] = {
            "right_percent": round(100 * right / len(cases), 1),
            "interval_percent": [round(100 * low, 1), round(100 * high, 1)],
            "parseable_percent": round(100 * sum(parseable(side[c]) for c in cases) / len(cases), 1),
            "without_a_call": sum(side[case].about.startswith("0 calls") for case in cases),
        }
    low, high = bootstrap(gains)
    line["gain_points"] = round(sum(gains) / len(gains), 1)
    line["gain_interval"] = [round(low, 1), round(high, 1)]
    return line


def tell(who: Contender, done: int, total: int, _result: CaseResult | None) -> None:
    """Progress, one line that is written over."""
    print(f"\r{who.model}: {done}/{total} ", end="", file=sys.stderr, flush=True)


async def run(model: str, given: argparse.Namespace, results: Kept) -> list[dict[str, Any]]:
    """Both sides of one model on all suites, one side after the other."""
    file = ModelStore(Settings().home.expanduser()).resolve(model).path
    name = f"llama.cpp:{file.stem}"
    lines = []
    with ExitStack() as stack:
        server = stack.enter_context(
            llama_server(
                file, cpu=given.cpu, threads=given.threads, slots=AT_ONCE, context=CONTEXT, name=name
            )
        )
        backend = RemoteBackend(
            name=name, url=server.base_url, model=server.model, remote=False, context_length=CONTEXT
        )
        data_home = stack.enter_context(tempfile.TemporaryDirectory(prefix="pentad-beside-"))
        settings = Settings(
            backends=(backend,), data_home=pathlib.Path(data_home), embedding_model=None, prompt_days=0
        )
        for suite in SUITES:
            source = CaseSource(data=given.data, limit=given.limit)
            order = Order(suite=suite, models=(model, name), source=source, at_once=AT_ONCE)
            await evaluate(order, lambda one: serving_only(settings, one), results, tell)
            sides = results.by_model(suite, model), results.by_model(suite, name)
            lines.append({"benchmark": "tool-calls-beside", "model": file.stem} | compared(suite, *sides))
            print(file=sys.stderr)
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder of the suites' files")
    parser.add_argument("--limit", type=int, help="cases of each suite; all when absent")
    parser.add_argument("--cpu", default="native", help="build of llama.cpp: native, no-amx or avx2")
    parser.add_argument("--threads", type=int, default=2, help="of llama.cpp")
    parser.add_argument("--out", type=pathlib.Path, help="a line per case; cases in it are not run again")
    parser.add_argument("--record", type=pathlib.Path, help="add the lines of the comparison to this file")
    given = parser.parse_args(arguments)
    results = Kept(given.out)
    for model in given.models:
        for line in asyncio.run(run(model, given, results)):
            line |= {"commit": facts.commit(), "machine": facts.machine()}
            print(json.dumps(line))
            if given.record:
                with given.record.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
