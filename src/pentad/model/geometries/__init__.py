"""Models that were described and not given out: specs by their papers, for sizes, plans and simulations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pentad.execution.spec import ModelSpec
from pentad.model.geometries import decoders, special


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """One published geometry."""

    build: Callable[[str], ModelSpec]
    """Takes the name."""
    published: float
    """Parameters that its makers state."""
    source: str
    """Where the shapes stand; what they leave open and how it is filled in."""

    def spec(self, name: str) -> ModelSpec:
        return self.build(name)


_GPT3 = (
    "Brown et al. 2020, table 2.1; the band, whose width is not told, is 128 tokens as in Child et al. 2019"
)
_GOPHER = "Rae et al. 2021, table 1; RMSNorm and projected distances, which the count needs"
_PANGU = "Zeng et al. 2021, table 1; the query layer is the last of the layers, as the count and the code say"
_PALM = "Chowdhery et al. 2022, table 1; its released counts have three digits and more"
_JURASSIC = "Lieber et al. 2021, table 1; 256 thousand tokens"
_GEOMETRIES: dict[str, Geometry] = {
    "gpt3-125m": Geometry(build=decoders.gpt3(12, 768, 12), published=125e6, source=_GPT3),
    "gpt3-760m": Geometry(build=decoders.gpt3(24, 1536, 16), published=760e6, source=_GPT3),
    "gpt3-2.7b": Geometry(build=decoders.gpt3(32, 2560, 32), published=2.7e9, source=_GPT3),
    "gpt3-6.7b": Geometry(build=decoders.gpt3(32, 4096, 32), published=6.7e9, source=_GPT3),
    "gpt3-175b": Geometry(build=decoders.gpt3(96, 12_288, 96), published=175e9, source=_GPT3),
    "gopher-44m": Geometry(build=decoders.gopher(8, 512, 16, 32), published=44e6, source=_GOPHER),
    "gopher-117m": Geometry(build=decoders.gopher(12, 768, 12, 64), published=117e6, source=_GOPHER),
    "gopher-417m": Geometry(build=decoders.gopher(12, 1536, 12, 128), published=417e6, source=_GOPHER),
    "gopher-1.4b": Geometry(build=decoders.gopher(24, 2048, 16, 128), published=1.4e9, source=_GOPHER),
    "gopher-7.1b": Geometry(build=decoders.gopher(32, 4096, 32, 128), published=7.1e9, source=_GOPHER),
    "gopher-280b": Geometry(build=decoders.gopher(80, 16_384, 128, 128), published=280e9, source=_GOPHER),
    "chinchilla-70b": Geometry(
        build=decoders.gopher(80, 8192, 64, 128),
        published=70e9,
        source="Hoffmann et al. 2022, table 4; Gopher's layers",
    ),
    "pangu-alpha-2.6b": Geometry(build=special.pangu(32, 2560, 40), published=2.6e9, source=_PANGU),
    "pangu-alpha-13b": Geometry(build=special.pangu(40, 5120, 40), published=13.1e9, source=_PANGU),
    "pangu-alpha-200b": Geometry(build=special.pangu(64, 16_384, 128), published=207e9, source=_PANGU),
    "ernie3-10b": Geometry(
        build=special.ernie3,
        published=10e9,
        source="Sun et al. 2021, section 4.1; 40 thousand tokens, learned positions as in released ones",
    ),
    "mt-nlg-530b": Geometry(
        build=decoders.gpt(105, 20_480, 128, vocab=51_200),
        published=530e9,
        source="Smith et al. 2022, section 3.1; GPT-2's tokens, padded for 8-way tensor parallelism",
    ),
    "jurassic1-7.5b": Geometry(
        build=decoders.gpt(32, 4096, 32, vocab=256_000), published=7.5e9, source=_JURASSIC
    ),
    "jurassic1-178b": Geometry(
        build=decoders.gpt(76, 13_824, 96, vocab=256_000), published=178e9, source=_JURASSIC
    ),
    "palm-8b": Geometry(build=decoders.palm(32, 4096, 16), published=8.63e9, source=_PALM),
    "palm-62b": Geometry(build=decoders.palm(64, 8192, 32), published=62.50e9, source=_PALM),
    "palm-540b": Geometry(build=decoders.palm(118, 18_432, 48), published=540.35e9, source=_PALM),
}
GEOMETRIES: Mapping[str, Geometry] = MappingProxyType(_GEOMETRIES)
"""By name."""
