"""Reading a model's weights with nothing missing, misshapen or left over."""

from __future__ import annotations

from pentad.errors import BadModelFile
from pentad.execution.spec import ModelSpec
from pentad.execution.weights import StoredTensor, WeightSource


class WeightReader:
    """Takes the tensors of a source that a spec needs; what does not fit is an error by name."""

    def __init__(self, spec: ModelSpec, source: WeightSource, prefix: str = "") -> None:
        """With a prefix, those of an encoder or a tower beside the main stack, under it."""
        self._spec = spec
        self._source = source
        self._prefix = prefix
        beside = "encoder." if spec.encoder is not None else "\0"
        names = (name for name in source.names() if not name.startswith(beside))
        self._unread = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}

    def stored(self, name: str, shape: tuple[int, ...]) -> StoredTensor:
        """The tensor of that canonical name and shape. Raises BadModelFile."""
        try:
            stored = self._source.tensor(self._prefix + name)
        except KeyError:
            raise BadModelFile(
                f"model {self._spec.name!r} lacks the tensor {self._prefix + name!r} of shape {shape}"
            ) from None
        if stored.shape != shape:
            raise BadModelFile(
                f"model {self._spec.name!r}: tensor {name!r} has shape {stored.shape}, its spec says {shape}"
            )
        self._unread.discard(name)
        return stored

    def check_all_read(self) -> None:
        """Raises BadModelFile when the source has tensors that were not asked for."""
        if self._unread:
            names = sorted(self._unread)
            more = f" and {len(names) - 4} more" if len(names) > 4 else ""
            raise BadModelFile(
                f"model {self._spec.name!r} has weights that its spec does not use: "
                f"{', '.join(names[:4])}{more}"
            )
