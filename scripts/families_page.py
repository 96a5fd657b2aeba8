"""docs/families.md: what is asked of a family, each family with what it takes, and how one is added."""

from __future__ import annotations

import pathlib

from families_table import families_table

PACKAGE = pathlib.Path(__file__).resolve().parent.parent / "examples" / "family_package"

HEAD = """# Model families

Generated from the registry by `scripts/docs`; do not edit. The text stands in `scripts/families_page.py`.

A family maps published descriptions (a `config.json`, or GGUF metadata) and tensor names to one `ModelSpec`
and canonical weights. The registry's `model_family` lists the architectures that are known. Each case of
`tests/family_cases.py` is held to Hugging Face's own code on a tiny random model by
`tests/parity/test_families.py`: folder and GGUF file, logits within 1e-3 in float32, whole, in chunks, from
the cache and in a batch; on the native kernels by the divergence that 8 bits allow, or skipped with the
part that they lack.

A `config.json` that sets a key which its family did not read is refused by that key's name: what would be
ignored could change what is computed. `families/harmless.py` lists the keys that change nothing. A model of
an unknown architecture is refused by the part that the nearest family does not know: a key, a tensor, a
stack of layers, or the block (`families/nearest.py`).

Encoder-decoders (T5 and its kin, BART, Marian, M2M-100) encode a request's source once, into KV blocks of its
own in front of the sequence; PyTorch computes them. Their source is the prompt of a completion, or the last
message of a chat. SmolVLM's and Idefics3's folders take images in chats; of other models that read images
the text works, and `pentad show` says what is not read.

Not loaded yet, each by the part that is missing: Falcon-H1 (attention and a recurrence beside each other in
one layer, on one norm), Gemma 3n (several streams that layers mix, rows of a table for every layer, keys
that layers share), Gemma 4 (such rows, values that are normed or are the keys, head sizes by the kind of
layer), and Marian's models with a recurrent decoder as Bergamot ships them (cross-attention beside a mixer
that holds a state: a layer would keep rows of its source alone, and snapshots would stand behind a source;
and Marian's own weight files).

Models that were published without weights (GPT-3, Gopher, Chinchilla, PanGu-alpha, ERNIE 3.0, MT-NLG,
Jurassic-1, PaLM) are geometries, `model/geometries`: `pentad show gpt3-175b` tells parameters, operations
and cache, and `pentad plan` and `pentad simulate` take the name. PyTorch computes their blocks; no kernel
of ours does.
"""

TABLE = """
## Each family

Parity errors are the largest differences from the reference's logits in float32, or from its states where a
family only reads, over the forms of tiny random models, as `tests/family_parity.py` measured and recorded
them; the native kernels' is the mean divergence in nats (the median where layers hold a state), or what is
missing to a cosine of 1.

"""
AFTERNOON = """
## How to add a family in an afternoon

1. Read the published code once: where norms stand, what has biases, how positions enter, which factors
   there are. Each has a field in `execution/layers.py`, `mixers.py` or `positions.py`; if one has not, the
   family needs an op first. The error that refuses a model of the family names the first part that differs
   from the nearest one.
2. Write a module with a `describe_config` that calls `config_decoder` (`describe.py`) with the sizes' keys
   and what differs from its defaults, or another family's `describe_config`; a `describe_gguf` likewise, if
   there are such files; and a table of names. Tensors that are fused, transposed, stacked or stored
   otherwise have a `Place` (`places.py`).
3. In Pentad itself it is `families/NAME.py` (`starcoder2.py` is a short one), and a line for each
   architecture in `model_family` of `registry.py`. In a package of your own it is an entry point, as below.
4. Hold it to the reference. In Pentad: add a case to `tests/family_cases.py` and run `pytest
   tests/parity/test_families.py -k NAME`. Norms and biases are random there, so that a forgotten one shows.
   The first refusal names the key that you have not read yet.

### As a package

[examples/family_package](../examples/family_package) adds Arcee, whose layers are Llama's but for the
feed-forward. `pip install` it, and `pentad serve FOLDER` takes such models; a test installs it and compares
its logits with the reference's. `pyproject.toml`:

```toml
{pyproject}```

`examples/family_package/src/pentad_arcee/__init__.py`:

```python
{module}```

A name of Pentad's own table is never replaced by a package's.
"""


def families_page() -> str:
    """The page."""
    pyproject = (PACKAGE / "pyproject.toml").read_text("utf-8")
    module = (PACKAGE / "src" / "pentad_arcee" / "__init__.py").read_text("utf-8")
    return (
        HEAD
        + TABLE
        + families_table()
        + AFTERNOON.replace("{pyproject}", pyproject).replace("{module}", module)
    )
