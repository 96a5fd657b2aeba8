"""Flags that plan and simulate have in common."""

from __future__ import annotations

from typing import Annotated

import typer

from pentad.application.cli.options import number

Model = Annotated[
    str | None,
    typer.Argument(metavar="MODEL", help="Stored model, path, a bare config.json, or a published geometry."),
]
WeightBits = Annotated[
    float | None, number("--weight-bits", "Bits per weight. Absent: as measured, else 16.", least=1, most=64)
]
KvBits = Annotated[
    float | None,
    number("--kv-bits", "Bits per cached number. Absent: as measured, else 16.", least=1, most=64),
]
Ttft = Annotated[float | None, number("--ttft-s", "Longest time to first token wished for.", least=0)]
InterToken = Annotated[float | None, number("--inter-token-s", "Longest time between tokens.", least=0)]
Deadline = Annotated[float | None, number("--deadline-s", "Longest time to the last token.", least=0)]
DeviceHelp = "local, a device of profile --list, or a profile file"
