"""In which formats a model's weights are stored, for people."""

from __future__ import annotations

from collections import Counter
from math import prod

from pentad.model.files.formats import Container


def stored_as(container: Container) -> str:
    """Formats by how many weights they hold, the most first, e.g. `Q4_K 84%, Q6_K 16%`.

    Behind the method for quantized safetensors, e.g. `gptq 4-bit: INT4 90%, F16 10%`. Less than half a
    percent is left out.
    """
    counts: Counter[str] = Counter()
    for info in container.tensors.values():
        counts[info.format] += prod(info.shape)
    all_weights = sum(counts.values()) or 1
    shares = ((name, round(100 * count / all_weights)) for name, count in counts.most_common())
    told = ", ".join(f"{name} {share}%" for name, share in shares if share)
    method = getattr(container, "label", None)
    return f"{method}: {told}" if method else told
