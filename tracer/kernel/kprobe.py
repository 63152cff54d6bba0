# SPDX-License-Identifier: Apache-2.0
"""A kprobe that runs a BPF program, by perf_event_open(2): no tracefs is needed.

Linux commit 33ea4b24277b ("perf/core: Implement the 'perf_kprobe' PMU") (in v4.17).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
from pathlib import Path
from typing import Final

from tracer.kernel.bpf import LoadError

__all__ = ("PMU", "attach_kprobe")

PMU: Final = Path("/sys/bus/event_source/devices/kprobe/type")
_NR_PERF_EVENT_OPEN: Final = {"x86_64": 298, "aarch64": 241}
_SET_BPF, _ENABLE = 0x40042408, 0x2400
_FLAG_FD_CLOEXEC = 8
_ANY_PROCESS, _FIRST_CPU, _NO_GROUP = -1, 0, -1


class _Attributes(ctypes.Structure):
    # struct perf_event_attr, its first published size
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("config", ctypes.c_uint64),
        ("sample_period", ctypes.c_uint64),
        ("sample_type", ctypes.c_uint64),
        ("read_format", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("wakeup_events", ctypes.c_uint32),
        ("bp_type", ctypes.c_uint32),
        ("function", ctypes.c_uint64),
        ("offset", ctypes.c_uint64),
    )


def attach_kprobe(function: str, prog_fd: int) -> int:
    """Run the program whenever `function` is entered; return what keeps it so. Raises LoadError."""
    name = ctypes.create_string_buffer(function.encode())
    attributes = _Attributes(
        type=int(PMU.read_text()),
        size=ctypes.sizeof(_Attributes),
        function=ctypes.addressof(name),
    )
    fd = _open(attributes, f"kprobe {function}")
    try:
        fcntl.ioctl(fd, _SET_BPF, prog_fd)
        fcntl.ioctl(fd, _ENABLE, 0)
    except OSError as error:
        os.close(fd)
        raise LoadError(error.errno or 0, f"kprobe {function}") from error
    return fd


def _open(attributes: _Attributes, what: str) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    words = (_NR_PERF_EVENT_OPEN[platform.machine()], ctypes.byref(attributes))
    rest = (_ANY_PROCESS, _FIRST_CPU, _NO_GROUP, _FLAG_FD_CLOEXEC)
    fd = int(libc.syscall(ctypes.c_long(words[0]), words[1], *map(ctypes.c_long, rest)))
    if fd < 0:
        raise LoadError(ctypes.get_errno(), what)
    return fd
