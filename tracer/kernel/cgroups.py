# SPDX-License-Identifier: Apache-2.0
"""Paths of cgroups by their kernfs id, asked of the kernel by file handle."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from tracer.kernel.mountinfo import read_mounts

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("CgroupPaths",)

_FILEID_KERNFS = 0xFE  # include/linux/exportfs.h: the handle is the 64-bit id itself


class _FileHandle(ctypes.Structure):
    _fields_ = [
        ("handle_bytes", ctypes.c_uint32),
        ("handle_type", ctypes.c_int32),
        ("id", ctypes.c_uint64),
    ]


class CgroupPaths:
    """Looks cgroups up below the first cgroup2 mount; without one, knows none."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd, self._mount = _open_mount()

    @property
    def there(self) -> bool:
        """Whether there is a hierarchy to look in."""
        return self._fd >= 0

    def path(self, cgroup_id: int) -> str | None:
        """Return the path within the hierarchy, None when it is gone or cannot be asked for."""
        if self._fd < 0 or not cgroup_id:
            return None
        handle = _FileHandle(8, _FILEID_KERNFS, cgroup_id)
        # A directory: the files of a cgroup have ids too, and no path of their own.
        flags = os.O_PATH | os.O_DIRECTORY
        fd = self._libc.open_by_handle_at(self._fd, ctypes.byref(handle), flags)
        if fd < 0:
            return None
        try:
            # Bytes: a cgroup's name is anybody's bytes.
            target = os.readlink(f"/proc/self/fd/{fd}".encode())  # noqa: PTH115 - Path takes str
        finally:
            os.close(fd)
        path = target.removeprefix(self._mount) or b"/"
        return path.decode("utf-8", "backslashreplace")

    def close(self) -> None:
        """Let go of the mount."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


# The first that is within reach: a mount can be covered by another one.
def _open_mount() -> tuple[int, bytes]:
    for mount in _cgroup2_mounts():
        with suppress(OSError):
            return os.open(mount, os.O_RDONLY | os.O_DIRECTORY), mount
    return -1, b""


def _cgroup2_mounts() -> Iterator[bytes]:
    for mount in read_mounts("/proc/self/mountinfo"):
        if mount.fstype == b"cgroup2":
            yield mount.point
