"""The system calls that sandboxed code may make, as a seccomp program (classic BPF)."""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Sequence
from dataclasses import dataclass

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16
"""In the kernel's struct seccomp_data; arguments are of 8 bytes, low half first."""

_NEW_NAMESPACE = 0x7E020000
"""The CLONE_NEW* flags."""
_TERMINAL_INPUT = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX type into the terminal that we were started from."""
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_LAST_KNOWN = 462
"""The kernel's later calls are answered as by a kernel without them."""

_DENIED = {
    # name: (x86_64, aarch64), None where the machine has none
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "create_module": (174, None),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "get_mempolicy": (239, 236),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "mbind": (237, 235),
    "memfd_secret": (447, 447),
    "migrate_pages": (256, 238),
    "modify_ldt": (154, None),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "name_to_handle_at": (303, 264),
    "nfsservctl": (180, 42),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "set_mempolicy": (238, 237),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "sysfs": (139, None),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "uselib": (134, None),
    "userfaultfd": (323, 282),
    "ustat": (136, None),
    "vhangup": (153, 58),
    "vmsplice": (278, 75),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Machine:
    """What differs between processors."""

    arch: int
    place: int
    """Of its numbers in `_DENIED`."""
    clone: int
    clone3: int
    ioctl: int
    socket: int
    has_x32: bool = False
    """Whether bit 30 of a number asks for another ABI."""


_MACHINES = {
    "x86_64": _Machine(arch=0xC000003E, place=0, clone=56, clone3=435, ioctl=16, socket=41, has_x32=True),
    "aarch64": _Machine(arch=0xC00000B7, place=1, clone=220, clone3=435, ioctl=29, socket=198),
}


def program(*, network: bool, machine: str = "") -> bytes | None:
    """The filter for `bwrap --seccomp`; None on processors that it has no numbers for.

    Refused (EPERM) is what reaches around the namespaces or into rarely tested parts of the kernel:
    mounts, new namespaces, other processes' memory, keys, BPF, io_uring, modules, the clock, typing into
    a terminal, and sockets but for AF_UNIX, with `network` those of IP too. A call of another ABI of the
    same processor kills the process, since its numbers mean something else.

    Args:
        machine: as `platform.machine()` says; empty takes this one.
    """
    known = _MACHINES.get(machine or platform.machine())
    if known is None:
        return None
    families = (_AF_UNIX, _AF_INET, _AF_INET6) if network else (_AF_UNIX,)
    code = [
        _load(_ARCH_AT),
        *_unless(_EQUAL, known.arch, _KILL),
        _load(_NUMBER_AT),
        *(_if(_AT_LEAST, 0x40000000, _KILL) if known.has_x32 else ()),
        *_if(_AT_LEAST, _LAST_KNOWN + 1, _ERROR | errno.ENOSYS),
        # Its flags lie in memory, where no filter looks; without it the C library takes clone.
        *_if(_EQUAL, known.clone3, _ERROR | errno.ENOSYS),
    ]
    for numbers in _DENIED.values():
        number = numbers[known.place]
        code += _if(_EQUAL, number, _ERROR | errno.EPERM) if number is not None else ()
    code += _with_argument(known.clone, 0, _if(_ANY_BIT, _NEW_NAMESPACE, _ERROR | errno.EPERM))
    forbidden = [each for asked in _TERMINAL_INPUT for each in _if(_EQUAL, asked, _ERROR | errno.EPERM)]
    code += _with_argument(known.ioctl, 1, forbidden)
    allowed = [each for family in families for each in _if(_EQUAL, family, _ALLOW)]
    code += _with_argument(known.socket, 0, [*allowed, _return(_ERROR | errno.EAFNOSUPPORT)])
    return b"".join([*code, _return(_ALLOW)])


def _with_argument(number: int, argument: int, checks: Sequence[bytes]) -> list[bytes]:
    """The checks on an argument of one system call, passed by all others."""
    body = [_load(_ARGUMENTS_AT + 8 * argument), *checks, _load(_NUMBER_AT)]
    return [struct.pack("=HBBI", _EQUAL, 0, len(body), number), *body]


def _if(test: int, value: int, verdict: int) -> tuple[bytes, bytes]:
    return struct.pack("=HBBI", test, 0, 1, value), _return(verdict)


def _unless(test: int, value: int, verdict: int) -> tuple[bytes, bytes]:
    return struct.pack("=HBBI", test, 1, 0, value), _return(verdict)


def _load(at: int) -> bytes:
    return struct.pack("=HBBI", _LOAD, 0, 0, at)


def _return(verdict: int) -> bytes:
    return struct.pack("=HBBI", _RETURN, 0, 0, verdict)
