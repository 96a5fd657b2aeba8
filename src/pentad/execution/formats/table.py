"""The table of all formats that are read."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from pentad.execution.formats.base import BlockFormat
from pentad.execution.formats.blocks_of_32 import BLOCKS_OF_32
from pentad.execution.formats.i_quants import I_QUANTS
from pentad.execution.formats.k_quants import K_QUANTS
from pentad.execution.formats.mxfp4 import MICROSCALED
from pentad.execution.formats.plain import PLAIN
from pentad.execution.formats.scaled import SCALED
from pentad.execution.weights import TensorFormat

GEOMETRY: Final[Mapping[TensorFormat, BlockFormat]] = MappingProxyType(
    {format.name: format for format in (*PLAIN, *BLOCKS_OF_32, *K_QUANTS, *I_QUANTS, *MICROSCALED, *SCALED)}
)
"""Name of a format to its record."""
