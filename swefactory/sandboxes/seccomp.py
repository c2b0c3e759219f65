"""A system call filter, as bytes for the kernel. One property: a sandboxed process can make no namespace and no mount.

It refuses what tests of Python packages never need and what kernel exploits begin with: new namespaces, mounts, keys,
bpf, io_uring, modules, performance counters, pushing characters into a terminal. A second wall behind the namespaces,
so an architecture we hold no numbers for gets none. Numbers: arch/x86/entry/syscalls/syscall_64.tbl and
include/uapi/asm-generic/unistd.h of Linux; instructions: Documentation/userspace-api/seccomp_filter.rst.
"""

import errno
import platform
import struct
from dataclasses import dataclass

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT, _SECOND_ARGUMENT = 0, 4, 16, 24  # offsets in struct seccomp_data
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NEW_NAMESPACES = 0x7E020080  # CLONE_NEWUSER, NEWNS, NEWPID, NEWNET, NEWIPC, NEWUTS, NEWCGROUP, NEWTIME
_CLONE_NAMESPACES = _NEW_NAMESPACES & ~0xFF  # the low byte of clone's flags is a signal
_TERMINAL_INJECTIONS = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX
_SAME_EVERYWHERE = (425, 426, 427, 428, 429, 430, 431, 432, 433, 442)  # io_uring_*, open_tree … fspick, mount_setattr
_CLONE3 = 435


@dataclass(frozen=True)
class _Architecture:
    audit: int
    clone: int
    unshare: int
    ioctl: int
    refused: tuple[int, ...]


# In both lists: mount umount2 pivot_root swapon swapoff reboot init_module delete_module finit_module kexec_load
# kexec_file_load add_key request_key keyctl perf_event_open bpf userfaultfd open_by_handle_at setns acct quotactl;
# x86 alone has iopl and ioperm.
_X86 = (
    165, 166, 155, 167, 168, 169, 175, 176, 313, 246, 320,
    248, 249, 250, 298, 321, 323, 304, 308, 163, 179, 172, 173,
)  # fmt: skip
_ARM = (40, 39, 41, 224, 225, 142, 105, 106, 273, 104, 294, 217, 218, 219, 241, 280, 282, 265, 268, 89, 60)
_ARCHITECTURES = {
    "x86_64": _Architecture(0xC000003E, 56, 272, 16, _X86),
    "aarch64": _Architecture(0xC00000B7, 220, 97, 29, _ARM),
}


def filter_program(machine: str = "") -> bytes | None:
    """The filter for `machine` (default: this one); None where we hold no numbers for it."""
    known = _ARCHITECTURES.get(machine or platform.machine())
    if known is None:
        return None
    denied = _answer(errno.EPERM)
    program = [_step(_LOAD, _ARCHITECTURE), _step(_EQUAL, known.audit, 1, 0), denied, _step(_LOAD, _NUMBER)]
    program += [_step(_AT_LEAST, 0x40000000, 0, 1), _answer(errno.ENOSYS)]  # x32, another numbering
    program += [_step(_EQUAL, _CLONE3, 0, 1), _answer(errno.ENOSYS)]  # its flags are out of a filter's sight
    for number in (*known.refused, *_SAME_EVERYWHERE):
        program += [_step(_EQUAL, number, 0, 1), denied]
    for number, offset, test, value in (
        (known.clone, _FIRST_ARGUMENT, _ANY_BIT, _CLONE_NAMESPACES),
        (known.unshare, _FIRST_ARGUMENT, _ANY_BIT, _NEW_NAMESPACES),
        *((known.ioctl, _SECOND_ARGUMENT, _EQUAL, request) for request in _TERMINAL_INJECTIONS),
    ):
        program += [_step(_EQUAL, number, 0, 4), _step(_LOAD, offset), _step(test, value, 0, 1), denied]
        program += [_step(_LOAD, _NUMBER)]
    return b"".join([*program, _step(_RETURN, _ALLOW)])


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


def _answer(error: int) -> bytes:
    return _step(_RETURN, _ERRNO | error)
