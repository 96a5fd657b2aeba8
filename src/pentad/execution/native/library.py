"""Which kernel library this machine runs: built per instruction set, picked by the CPU's flags."""

from __future__ import annotations

import ctypes
import pathlib
import platform
import subprocess
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, Final

from pentad.errors import Incompatible
from pentad.execution.native.structs import (
    INTERFACE,
    PAGER,
    STRUCTS,
    Batch,
    Config,
    Draws,
    EncoderConfig,
    ExpertChoice,
)

FOLDER: Final = pathlib.Path(__file__).parent / "lib"

_AVX2: Final = frozenset({"avx2", "fma", "f16c"})
_AVX512: Final = _AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"}
NEEDS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "amx": _AVX512 | {"avx512_bf16", "amx_tile", "amx_bf16", "amx_int8"},
        "avx512": _AVX512 | {"avx512_bf16"},
        "avx512vnni": _AVX512,
        "avxvnni": _AVX2 | {"avx_vnni"},
        "avx2": _AVX2,
        "neon": frozenset({"asimddp", "fphp", "asimdhp"}),
        "portable": frozenset(),
    }
)
"""Instruction set to the CPU flags (Linux names) that its library needs, the fastest first.
CMakeLists.txt builds them."""


class KernelLibrary:
    """One loaded library; `functions` has those of kernels/native.h, which let go of the GIL.

    Args:
        path: the shared library.
        name: the instruction set that it was built for.

    Raises:
        Incompatible: it cannot be loaded, or was built from other sources than this package's.
    """

    def __init__(self, path: pathlib.Path, name: str) -> None:
        self.name = name
        try:
            self.functions: Any = ctypes.CDLL(str(path))
            for function, (result, arguments) in _SIGNATURES.items():
                entry = getattr(self.functions, function)
                entry.restype, entry.argtypes = result, arguments
        except (OSError, AttributeError) as error:
            raise Incompatible(f"the {name!r} kernels cannot be loaded: {error}", hint=_REBUILD) from error
        sizes = map(self.functions.pentad_struct_bytes, range(len(STRUCTS)))
        if (self.functions.pentad_interface(), *sizes) != (INTERFACE, *map(ctypes.sizeof, STRUCTS)):
            raise Incompatible(f"the {name!r} kernels in {str(path)!r} are of another version", hint=_REBUILD)
        self.layout: str = self.functions.pentad_layout().decode()
        """Name of the layout that weights are packed into."""
        self.detail: str = self.functions.pentad_kernels().decode()
        """What the kernels use, e.g. `avx512-vnni+amx-bf16`."""


_REBUILD: Final = "run scripts/setup to build them again, or choose --kernels torch"

_i32, _size, _pointer = ctypes.c_int32, ctypes.c_size_t, ctypes.c_void_p
_SIGNATURES: Final[Mapping[str, tuple[Any, tuple[Any, ...]]]] = MappingProxyType(
    {
        "pentad_create": (_pointer, (ctypes.POINTER(Config),)),
        "pentad_destroy": (None, (_pointer,)),
        "pentad_set": (_i32, (_pointer, _i32, _i32, _i32, _pointer, _i32, _i32, _i32)),
        "pentad_packed_bytes": (_size, (_i32, _i32, _i32)),
        "pentad_pack": (_i32, (_pointer, _i32, _pointer, _i32, _i32, _i32, _pointer)),
        "pentad_attach": (_i32, (_pointer, _i32, _i32, _i32, _i32, _i32, _pointer)),
        "pentad_layout": (ctypes.c_char_p, ()),
        "pentad_interface": (_i32, ()),
        "pentad_struct_bytes": (_i32, (_i32,)),
        "pentad_checksum": (ctypes.c_uint64, (_pointer, _size)),
        "pentad_set_experts": (_i32, (_pointer, _i32, ctypes.POINTER(ExpertChoice))),
        "pentad_expert_bytes": (ctypes.c_uint64, (_pointer,)),
        "pentad_set_pager": (_i32, (_pointer, PAGER, _pointer)),
        "pentad_guess_experts": (_i32, (_pointer, _i32, _pointer, _i32)),
        "pentad_set_program": (_i32, (_pointer, _pointer, _i32)),
        "pentad_watch_weights": (_i32, (_pointer, _pointer, _size)),
        "pentad_watch_file": (_pointer, (_pointer, _size)),
        "pentad_watch_lost": (ctypes.c_uint32, (_pointer,)),
        "pentad_watch_end": (None, (_pointer,)),
        "pentad_ready": (_i32, (_pointer,)),
        "pentad_adapter_create": (_pointer, (_pointer,)),
        "pentad_adapter_destroy": (None, (_pointer,)),
        "pentad_adapter_set": (_i32, (_pointer, *(_i32,) * 5, *(_pointer,) * 2)),
        "pentad_adapt": (_i32, (_pointer, _pointer, _i32)),
        "pentad_step": (_i32, (_pointer, ctypes.POINTER(Batch))),
        "pentad_step_draw": (_i32, (_pointer, ctypes.POINTER(Batch), ctypes.POINTER(Draws))),
        "pentad_draw": (_i32, (_pointer, _i32, ctypes.POINTER(Draws))),
        "pentad_copy_block": (_i32, (_pointer, _i32, _i32)),
        "pentad_block_data": (_pointer, (_pointer, _i32)),
        "pentad_kv_block_bytes": (_size, (_pointer,)),
        "pentad_copy_slots": (_i32, (_pointer, _pointer, _i32)),
        "pentad_copy_state": (_i32, (_pointer, _i32, _i32)),
        "pentad_move_entries": (_i32, (_pointer, _pointer, _i32)),
        "pentad_encoder_create": (_pointer, (ctypes.POINTER(EncoderConfig),)),
        "pentad_encoder_destroy": (None, (_pointer,)),
        "pentad_encoder_set": (_i32, (_pointer, _i32, _i32, _i32, _pointer, _i32, _i32)),
        "pentad_encode": (_i32, (_pointer, _pointer, _pointer, _i32, _pointer)),
        "pentad_encoder_weight_bytes": (_size, (_pointer,)),
        "pentad_time_products": (_i32, (*(_i32,) * 6, *(_pointer,) * 3)),
        "pentad_time_read": (ctypes.c_double, (_size, _i32, _i32, _i32)),
        "pentad_attend": (ctypes.c_int64, (*(_pointer,) * 3, *(_i32,) * 5, *(ctypes.c_float,) * 4, _pointer)),
        "pentad_weight_bytes": (_size, (_pointer,)),
        "pentad_block_bytes": (_size, (_pointer,)),
        "pentad_read_block": (_i32, (_pointer, _i32, _i32, _i32, _i32, _pointer)),
        "pentad_page_scores": (_i32, (_pointer, _pointer, _i32, _pointer)),
        "pentad_activate": (None, (_i32, _pointer, _pointer, _i32, _pointer)),
        "pentad_code_row": (None, (_pointer, _i32, _pointer, _pointer)),
        "pentad_kernels": (ctypes.c_char_p, ()),
        "pentad_threads": (_i32, (_pointer,)),
        "pentad_set_threads": (None, (_pointer, _i32)),
        "pentad_set_timed": (None, (_pointer, _i32)),
        "pentad_times": (None, (_pointer, _pointer)),
        "pentad_probe_read": (_i32, (_pointer, _size, _i32, _i32, _pointer)),
        "pentad_probe_products": (_i32, (_i32, _i32, _i32, _pointer)),
    }
)
"""Function of native.h and native_adapters.h to its result and arguments."""


def built(folder: pathlib.Path = FOLDER) -> tuple[str, ...]:
    """The instruction sets whose libraries are installed, the fastest first."""
    return tuple(name for name in NEEDS if library_path(name, folder).is_file())


def library_path(name: str, folder: pathlib.Path = FOLDER) -> pathlib.Path:
    """Where the library of an instruction set lies, if it is installed."""
    return folder / f"libpentad_{name}.so"


def open_library(name: str, folder: pathlib.Path = FOLDER) -> KernelLibrary:
    """Loads the library of an instruction set, which this CPU must have. Raises Incompatible."""
    return KernelLibrary(library_path(name, folder), name)


def usable(flags: Collection[str], found: Collection[str]) -> tuple[str, ...]:
    """Of the libraries found, those that a CPU with these flags runs, the fastest first."""
    return tuple(name for name, needs in NEEDS.items() if name in found and needs <= frozenset(flags))


def cpu_flags() -> frozenset[str]:
    """Instruction sets of this CPU under their Linux names; empty where the system does not tell.

    On Linux they are those that the kernel lets programs use.
    """
    if platform.system() == "Darwin":
        return _darwin_flags()
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


_DARWIN: Final = MappingProxyType(
    {
        "hw.optional.arm.FEAT_DotProd": ("asimddp",),
        "hw.optional.arm.FEAT_FP16": ("fphp", "asimdhp"),
        "hw.optional.avx2_0": ("avx2",),
        "hw.optional.fma": ("fma",),
        "hw.optional.f16c": ("f16c",),
    }
)
"""What macOS calls the flags that a library may need."""


def _darwin_flags() -> frozenset[str]:
    try:
        answer = subprocess.run(
            ["/usr/sbin/sysctl", "-i", *_DARWIN], capture_output=True, text=True, check=True, timeout=5
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return frozenset()
    known = dict(line.split(": ", 1) for line in answer.splitlines() if ": " in line)
    return frozenset(flag for key, flags in _DARWIN.items() if known.get(key) == "1" for flag in flags)
