"""A pytest plugin: kernels come from the folder that PENTAD_TESTED_KERNELS names (scripts/sanitize)."""

from __future__ import annotations

import os
import pathlib

from pentad.execution.native import library

_FOLDER = pathlib.Path(os.environ.pop("PENTAD_TESTED_KERNELS")).absolute()

for function in (library.built, library.library_path, library.open_library):
    function.__defaults__ = (_FOLDER,)
