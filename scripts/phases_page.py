"""docs/phases.md: what each choice of a phase declares, and with which others it does not go."""

from __future__ import annotations

from pentad.application.phases import known_parts
from pentad.model.composition import Part, clash

HEAD = """# Phases that go together

Generated from what the strategies declare by `scripts/docs`; do not edit. The text stands in
`scripts/phases_page.py`.

An answer has phases: weights are loaded, kernels compute prompts and steps, a cache keeps keys and values in
some form, drafts are verified, several processes may share a model. Settings choose one part for each. What a
part needs must be given by the kernels; what it excludes no other part may need. With `kernels: auto` it is
enough that one kind of kernels gives it all, and that kind is taken. `pentad serve` and every other command
refuse a pair that does not go together when the settings are read, with the reason and what to change:

    error: kv_policy 'sinks' and speculation 'ngram' cannot be combined: 'sinks' allows no drafts verified in
    one step; set kv_policy to keep-all, or set speculation to none

`pentad.model.composition.compose` lists the stacks that go together by the seconds that they are predicted to
take on a device, the whole stack at once, since gains of parts do not multiply. What a model lacks (windows,
states, an encoder) is told when the model is opened. `portable` stands for all native kernels.

| part | kernels give, or it needs | excludes | exactness | does not go with |
|---|---|---|---|---|
"""


def phases_page() -> str:
    """The page."""
    parts = known_parts()
    computes = [part for part in parts if part.phase == "compute"]
    return HEAD + "".join(_row(part, parts, computes) for part in parts)


def _row(part: Part, parts: list[Part], computes: list[Part]) -> str:
    others = [other for other in parts if other.phase != part.phase and clash(part, other, computes)]
    cells = (
        _named(part),
        ", ".join(sorted(part.gives or part.needs)) or "nothing",
        ", ".join(sorted(part.excludes)) or "nothing",
        part.exactness,
        ", ".join(map(_named, others)) or "nothing",
    )
    return f"| {' | '.join(cells)} |\n"


def _named(part: Part) -> str:
    return f"`{part.setting}: {part.name}`"
