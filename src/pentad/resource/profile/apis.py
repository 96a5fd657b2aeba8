"""Which interfaces to accelerators this machine has: asked of their own libraries, absent cleanly.

Nothing is installed or imported for it: each interface's loader library is opened where it is, and asked for
its devices. A missing library, an old driver or an empty machine is an answer, not an error.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Load = Callable[[str], Any]
"""Opens a library by name; OSError where there is none."""

_LIBRARIES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "cuda": {"linux": ("libcuda.so.1",), "win32": ("nvcuda.dll",)},
    "rocm": {"linux": ("libamdhip64.so", "libamdhip64.so.6"), "win32": ("amdhip64.dll",)},
    "metal": {"darwin": ("/System/Library/Frameworks/Metal.framework/Metal",)},
    "vulkan": {
        "linux": ("libvulkan.so.1",),
        "win32": ("vulkan-1.dll",),
        "darwin": ("libvulkan.1.dylib", "libMoltenVK.dylib"),
    },
    "opencl": {
        "linux": ("libOpenCL.so.1",),
        "win32": ("OpenCL.dll",),
        "darwin": ("/System/Library/Frameworks/OpenCL.framework/OpenCL",),
    },
}
APIS = tuple(_LIBRARIES)
_NAME_BYTES = 256
_MANY = 64
_VULKAN_PROPERTIES_BYTES = 1024
_VULKAN_NAME_OFFSET = 20
"""Of the name in VkPhysicalDeviceProperties: behind five numbers of 32 bits."""
_CL_ALL_DEVICES = 0xFFFFFFFF
_CL_DEVICE_NAME = 0x102B


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiFinding:
    """Whether an interface is there, and on which devices."""

    api: str
    present: bool
    devices: tuple[str, ...] = ()
    detail: str = ""
    """Of an absent one: why."""


class _Absent(Exception):
    """The library is there and has no device, or does not answer."""


def probe(api: str, *, load: Load = ctypes.CDLL, platform: str = sys.platform) -> ApiFinding:
    """Asks for one interface's devices. Never raises for what a machine lacks.

    Raises KeyError for an interface that is not of APIS.
    """
    names = _LIBRARIES[api].get("linux" if platform.startswith("linux") else platform, ())
    if not names:
        return ApiFinding(api=api, present=False, detail=f"there is no {api} on {platform}")
    library = None
    for name in names:
        try:
            library = load(name)
            break
        except OSError:
            continue
    if library is None:
        return ApiFinding(api=api, present=False, detail=f"{names[0]} is not installed")
    try:
        devices = tuple(_PROBES[api](library))
    except _Absent as why:
        return ApiFinding(api=api, present=False, detail=str(why))
    except AttributeError as error:
        return ApiFinding(api=api, present=False, detail=f"{names[0]} has no such function: {error}")
    if not devices:
        return ApiFinding(api=api, present=False, detail=f"{names[0]} sees no device")
    return ApiFinding(api=api, present=True, devices=devices)


def probe_all(*, load: Load = ctypes.CDLL, platform: str = sys.platform) -> tuple[ApiFinding, ...]:
    """A finding for each interface, in the order of APIS."""
    return tuple(probe(api, load=load, platform=platform) for api in APIS)


def _ok(function: str, answer: int) -> None:
    if answer != 0:
        raise _Absent(f"{function} answers {answer}: no device, or a driver that does not fit")


def _cuda(library: Any) -> Iterator[str]:
    _ok("cuInit", library.cuInit(0))
    count = ctypes.c_int(0)
    _ok("cuDeviceGetCount", library.cuDeviceGetCount(ctypes.byref(count)))
    for i in range(count.value):
        name = ctypes.create_string_buffer(_NAME_BYTES)
        _ok("cuDeviceGetName", library.cuDeviceGetName(name, _NAME_BYTES, i))
        yield name.value.decode(errors="replace")


def _rocm(library: Any) -> Iterator[str]:
    count = ctypes.c_int(0)
    _ok("hipGetDeviceCount", library.hipGetDeviceCount(ctypes.byref(count)))
    for i in range(count.value):
        name = ctypes.create_string_buffer(_NAME_BYTES)
        _ok("hipDeviceGetName", library.hipDeviceGetName(name, _NAME_BYTES, i))
        yield name.value.decode(errors="replace")


def _metal(library: Any) -> Iterator[str]:
    create = library.MTLCreateSystemDefaultDevice
    create.restype = ctypes.c_void_p
    if create():
        yield "the system's default device"


class _VulkanInstanceInfo(ctypes.Structure):
    """VkInstanceCreateInfo without layers and extensions."""

    _fields_ = (
        ("kind", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("flags", ctypes.c_uint32),
        ("application", ctypes.c_void_p),
        ("layer_count", ctypes.c_uint32),
        ("layers", ctypes.c_void_p),
        ("extension_count", ctypes.c_uint32),
        ("extensions", ctypes.c_void_p),
    )


def _vulkan(library: Any) -> Iterator[str]:
    info, instance = _VulkanInstanceInfo(kind=1), ctypes.c_void_p()
    _ok("vkCreateInstance", library.vkCreateInstance(ctypes.byref(info), None, ctypes.byref(instance)))
    try:
        count = ctypes.c_uint32(0)
        enumerate_devices = library.vkEnumeratePhysicalDevices
        _ok("vkEnumeratePhysicalDevices", enumerate_devices(instance, ctypes.byref(count), None))
        handles = (ctypes.c_void_p * max(1, count.value))()
        _ok("vkEnumeratePhysicalDevices", enumerate_devices(instance, ctypes.byref(count), handles))
        for i in range(count.value):
            properties = ctypes.create_string_buffer(_VULKAN_PROPERTIES_BYTES)
            library.vkGetPhysicalDeviceProperties(ctypes.c_void_p(handles[i]), properties)
            name = properties.raw[_VULKAN_NAME_OFFSET : _VULKAN_NAME_OFFSET + _NAME_BYTES]
            yield name.split(b"\0")[0].decode(errors="replace")
    finally:
        library.vkDestroyInstance(instance, None)


def _opencl(library: Any) -> Iterator[str]:
    count = ctypes.c_uint32(0)
    platforms = (ctypes.c_void_p * _MANY)()
    _ok("clGetPlatformIDs", library.clGetPlatformIDs(_MANY, platforms, ctypes.byref(count)))
    for i in range(min(count.value, _MANY)):
        handles, found = (ctypes.c_void_p * _MANY)(), ctypes.c_uint32(0)
        kind = ctypes.c_uint64(_CL_ALL_DEVICES)
        handle = ctypes.c_void_p(platforms[i])
        if library.clGetDeviceIDs(handle, kind, _MANY, handles, ctypes.byref(found)) != 0:
            continue  # a platform without devices says so by an error
        for j in range(min(found.value, _MANY)):
            name = ctypes.create_string_buffer(_NAME_BYTES)
            one, size = ctypes.c_void_p(handles[j]), ctypes.c_size_t(_NAME_BYTES)
            _ok("clGetDeviceInfo", library.clGetDeviceInfo(one, _CL_DEVICE_NAME, size, name, None))
            yield name.value.decode(errors="replace")


_PROBES: Mapping[str, Callable[[Any], Iterator[str]]] = {
    "cuda": _cuda,
    "rocm": _rocm,
    "metal": _metal,
    "vulkan": _vulkan,
    "opencl": _opencl,
}
