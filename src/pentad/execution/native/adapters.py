"""Low-rank adapters beside packed weights: each sequence of a step has its own, in one batch."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from pentad.errors import BadModelFile
from pentad.execution.adapters import Adapter, placed_up
from pentad.execution.batch import RaggedBatch
from pentad.execution.native.library import KernelLibrary
from pentad.execution.native.structs import TENSORS
from pentad.execution.spec import ModelSpec


class _Held:
    """An adapter in the memory of the kernels, until nobody refers to it."""

    def __init__(self, functions: Any, model: int) -> None:
        self.address: int | None = functions.pentad_adapter_create(model)
        if self.address is None:
            raise MemoryError("no memory for an adapter")
        weakref.finalize(self, functions.pentad_adapter_destroy, self.address)


class NativeAdapters:
    """The adapters of one runner (execution.adapters.Adapters), and who has which in the present step.

    Args:
        spec: of the base.
        library: whose functions are called.
        model: of that library.
    """

    def __init__(self, spec: ModelSpec, library: KernelLibrary, model: int) -> None:
        self._spec = spec
        self._functions: Any = library.functions
        self._model = model
        self._known: dict[str, _Held] = {}
        self._given: Sequence[_Held | None] = ()
        """Of the sequences of the present step; held so that none goes while it is computed."""

    def keys(self) -> Collection[str]:
        """See Adapters."""
        return self._known.keys()

    def put(self, adapter: Adapter) -> None:
        """See Adapters. Raises BadModelFile for one that does not fit the model."""
        held = _Held(self._functions, self._model)
        for name, pair in adapter.pairs.items():
            _, layer, tensor = name.split(".")
            down = np.ascontiguousarray(pair.down, np.float32)
            up = np.ascontiguousarray(placed_up(adapter, name, self._spec), np.float32)
            (rank, columns), rows = down.shape, up.shape[0]
            places = down.ctypes.data, up.ctypes.data
            if self._functions.pentad_adapter_set(
                held.address, TENSORS[tensor], int(layer), rank, rows, columns, *places
            ):
                raise BadModelFile(f"adapter {adapter.key!r} does not fit {name!r} of {self._spec.name!r}")
        self._known = {**self._known, adapter.key: held}

    def drop(self, key: str) -> None:
        """See Adapters."""
        self._known = {name: held for name, held in self._known.items() if name != key}

    def begin(self, batch: RaggedBatch) -> None:
        """Says which sequences of the step that comes next have which adapter."""
        if batch.adapters is None:
            if self._given:
                self._functions.pentad_adapt(self._model, None, 0)
                self._given = ()
            return
        given = [self._known[key] if key else None for key in batch.adapters]
        addresses = (ctypes.c_void_p * len(given))(*(None if one is None else one.address for one in given))
        self._functions.pentad_adapt(self._model, addresses, len(given))
        self._given = given
