"""llama.cpp through its own bench tools, with the flags that are fastest for it on this machine."""

from __future__ import annotations

import itertools
import json
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pentad.application.bench.engine import EngineLoad
from pentad.application.bench.peers.base import INSTALL_HINT, folder, run
from pentad.errors import BackendFailed

_PREFILL = 0
"""Stands for the prefill among the batches."""
_TRIAL_TOKENS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """One way to run it."""

    cpu: str
    """Folder of the part that was built for an instruction set: native, no-amx, avx2."""
    flash: bool
    repack: bool

    def __str__(self) -> str:
        return f"{self.cpu}{' fa' if self.flash else ''}{'' if self.repack else ' no-repack'}"


class LlamaCpp:
    """One GGUF file in llama.cpp.

    Every combination of build, flash attention and repacking is tried once; for the prefill and for
    each batch the fastest is kept, in `best.json` beside the builds; remove it to try again. Builds
    that crash are left out.

    Args:
        name: in the table.
        file: the model.
        cpus: builds to choose from.
        requantize: another format to write the file in first, e.g. `Q4_0`.
    """

    def __init__(
        self,
        name: str,
        file: pathlib.Path,
        *,
        cpus: tuple[str, ...] = ("native", "no-amx"),
        requantize: str | None = None,
    ) -> None:
        self.name = name
        self._source = file
        self._file = file
        self._cpus = cpus
        self._requantize = requantize
        self._home = folder() / "llama.cpp"
        self._load = EngineLoad()
        self._threads = 1
        self._best: dict[int, Flags] = {}

    @property
    def form(self) -> str:
        chosen = {_name(batch): str(flags) for batch, flags in self._best.items()}
        what = self._requantize or "as filed"
        if len(set(chosen.values())) == 1:
            return f"{what}, {next(iter(chosen.values()))}"
        return ", ".join([what, *(f"{name}: {flags}" for name, flags in chosen.items())])

    @property
    def file(self) -> pathlib.Path:
        """What it reads: the model, or that requantized."""
        return self._file

    def build(self, batch: int) -> str:
        """The build that is fastest at a batch, once prepared."""
        return self._best[batch].cpu

    def missing(self) -> str | None:
        there = (self._home / "bin" / "llama-bench").exists() and any(self._builds())
        return None if there else INSTALL_HINT.format(name="llama.cpp")

    def prepare(self, load: EngineLoad, threads: int) -> None:
        self._load, self._threads = load, threads
        if self._requantize:
            self._file = self._requantized(self._requantize)
        builds, size = ",".join(self._builds()), self._file.stat().st_size
        key = f"{self._file.name} {size} {builds} {threads} {load.batches}"
        kept = self._home / "best.json"
        known: dict[str, dict[str, list[Any]]] = json.loads(kept.read_text()) if kept.exists() else {}
        if key not in known:
            known[key] = {str(b): [f.cpu, f.flash, f.repack] for b, f in self._tried(load).items()}
            kept.write_text(json.dumps(known, indent=1))
        self._best = {
            int(batch): Flags(cpu=cpu, flash=flash, repack=repack)
            for batch, (cpu, flash, repack) in known[key].items()
        }

    def _tried(self, load: EngineLoad) -> dict[int, Flags]:
        """The fastest flags for the prefill and each batch. Raises BackendFailed when none works."""
        trial = EngineLoad(
            prompt_tokens=load.prompt_tokens,
            new_tokens=_TRIAL_TOKENS,
            context_tokens=_TRIAL_TOKENS,
            batches=load.batches,
        )
        found: dict[int, tuple[float, Flags]] = {}
        failures: list[str] = []
        builds = tuple(self._builds())
        for cpu, flash, repack in itertools.product(builds, (True, False), (True, False)):
            if cpu == "native" and not repack and "no-amx" in builds:
                continue  # AMX works on repacked weights only: this is what no-amx does
            flags = Flags(cpu=cpu, flash=flash, repack=repack)
            try:
                rates = self._rates(trial, flags, [_PREFILL, *trial.batches])
            except BackendFailed as error:
                failures.append(f"{flags}: {error}")
                continue
            for batch, rate in rates.items():
                found[batch] = max(found.get(batch, (0.0, flags)), (rate, flags), key=lambda pair: pair[0])
        if not found:
            raise BackendFailed(f"{self.name} runs in no form: {'; '.join(failures)}")
        return {batch: flags for batch, (_, flags) in found.items()}

    def round(self) -> tuple[float, dict[int, float]]:
        rates: dict[int, float] = {}
        for flags in dict.fromkeys(self._best.values()):
            wanted = [batch for batch, best in self._best.items() if best == flags]
            rates |= self._rates(self._load, flags, wanted)
        return rates.pop(_PREFILL), rates

    def _rates(self, load: EngineLoad, flags: Flags, wanted: list[int]) -> dict[int, float]:
        rates: dict[int, float] = {}
        flash = "on" if flags.flash else "off"
        at, common = self._home / f"cpu-{flags.cpu}", ["-m", str(self._file), "-t", str(self._threads)]
        if _PREFILL in wanted:
            options = ["-p", str(load.prompt_tokens), "-n", "0", "-r", "1", "-fa", flash]
            options += ["--repack", str(int(flags.repack)), "-o", "json"]
            output = run([str(self._home / "bin" / "llama-bench"), *common, *options], at=at)
            rates[_PREFILL] = float(json.loads(output)[0]["avg_ts"])
        batches = [batch for batch in wanted if batch != _PREFILL]
        if batches:
            context = max(batches) * (load.context + load.new_tokens + 16)
            options = ["-c", str(context), "-npp", str(load.context), "-ntg", str(load.new_tokens)]
            options += ["-npl", ",".join(map(str, batches)), "-tb", str(self._threads), "-fa", flash]
            options += ["--output-format", "jsonl"] + ([] if flags.repack else ["--no-repack"])
            output = run([str(self._home / "bin" / "llama-batched-bench"), *common, *options], at=at)
            for line in output.splitlines():
                if line.startswith("{"):
                    row = json.loads(line)
                    rates[int(row["pl"])] = float(row["speed_tg"])
        if absent := set(wanted) - rates.keys():
            raise BackendFailed(f"its bench tool gave no number for {sorted(absent)}")
        return rates

    def _builds(self) -> Iterator[str]:
        for cpu in self._cpus:
            if (self._home / f"cpu-{cpu}" / "libggml-cpu.so").exists():
                yield cpu

    def _requantized(self, format: str) -> pathlib.Path:
        target = self._home / "models" / f"{self._source.stem}.{self._source.stat().st_size}.{format}.gguf"
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            part = target.with_suffix(".part")
            command = [str(self._home / "bin" / "llama-quantize"), "--allow-requantize"]
            run(
                [*command, str(self._source), str(part), format],
                at=self._home / f"cpu-{next(self._builds())}",
            )
            part.rename(target)
        return target


def _name(batch: int) -> str:
    return "prefill" if batch == _PREFILL else f"batch {batch}"
