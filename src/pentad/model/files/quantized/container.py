"""A folder of quantized safetensors as if its matrices were stored whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from pentad.errors import BadModelFile
from pentad.execution.quant import stored_bytes
from pentad.execution.weights import StoredTensor
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container, TensorInfo
from pentad.model.files.quantized import bitsandbytes, compressed
from pentad.model.files.quantized.awq import Awq
from pentad.model.files.quantized.base import Matrix, Members, Method, stored
from pentad.model.files.quantized.floats8 import Floats8
from pentad.model.files.quantized.gptq import Gptq
from pentad.model.files.quantized.mxfp4 import Mxfp4
from pentad.model.files.safetensors import SafetensorsFolder

METHODS: Final[Mapping[str, Callable[[Fields], Method]]] = MappingProxyType(
    {
        "gptq": Gptq.from_config,
        "awq": Awq.from_config,
        "compressed-tensors": compressed.from_config,
        "fp8": Floats8.from_config,
        "fbgemm_fp8": Floats8.from_config,
        "mxfp4": Mxfp4.from_config,
        "bitsandbytes": bitsandbytes.from_config,
    }
)
"""`quant_method` to what reads it."""


def opened(folder: SafetensorsFolder, config: Fields) -> Container:
    """The folder's weights; through its method where the config has a `quantization_config`.

    Raises BadModelFile for a method that is not read, by its name, and for tensors that do not fit it.
    """
    if not config.has("quantization_config"):
        return folder
    options = config.table("quantization_config")
    name = options.text("quant_method", "bitsandbytes" if options.has("load_in_4bit") else None)
    if name not in METHODS:
        raise BadModelFile(
            f"{config.source!r} says that the weights are quantized by {name!r}, which is not read",
            hint=f"take the model in another form; readable are {', '.join(METHODS)} and no quantization",
        )
    return QuantizedFolder(folder, METHODS[name](options))


class QuantizedFolder:
    """The container of a quantized model; matrices are put together when they are read.

    Args:
        folder: which this closes.
    """

    def __init__(self, folder: SafetensorsFolder, method: Method) -> None:
        self._folder = folder
        self._method = method
        self.label = method.label
        self._matrices: dict[str, tuple[Members, Matrix]] = {}
        hidden: set[str] = set()
        for name, info in folder.tensors.items():
            if name.endswith(method.main) and info.format in method.types:
                members = Members(folder=folder, base=name.removesuffix(method.main))
                self._matrices[members.name(".weight")] = members, method.matrix(members)
                hidden |= {members.name(suffix) for suffix in (method.main, *method.others)}
        plain = {name: info for name, info in folder.tensors.items() if name not in hidden}
        made = {name: _info(name, matrix) for name, (_, matrix) in self._matrices.items()}
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(plain | made)

    @property
    def size_bytes(self) -> int:
        return self._folder.size_bytes

    def tensor(self, name: str) -> StoredTensor:
        """The tensor; a quantized one is made when its data are read. Raises KeyError, BadModelFile."""
        if name not in self._matrices:
            self.tensors[name]
            return self._folder.tensor(name)
        members, matrix = self._matrices[name]
        return stored(name, matrix, members.origins(self._method.main, *self._method.others))

    def close(self) -> None:
        """Unmaps all files."""
        self._folder.close()


def _info(name: str, matrix: Matrix) -> TensorInfo:
    size = stored_bytes(matrix.format, matrix.shape)
    return TensorInfo(name=name, format=matrix.format, shape=matrix.shape, offset=0, size_bytes=size)
