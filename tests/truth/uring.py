# SPDX-License-Identifier: Apache-2.0
"""The least of io_uring that closes a descriptor: io_uring(7), by system call numbers."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SYS_IO_URING_SETUP, SYS_IO_URING_ENTER = 425, 426
IORING_OFF_SQ_RING, IORING_OFF_SQES = 0, 0x10000000
IORING_ENTER_GETEVENTS = 1
IORING_OP_CLOSE = 19
SQE_BYTES = 64
ENTRIES = 1
# struct io_uring_params: 10 words, then struct io_sqring_offsets and struct io_cqring_offsets.
PARAMS_BYTES = 120
SQ_OFFSETS = struct.Struct("10I")
SQ_OFFSETS_AT = 40
HEAD, TAIL, ARRAY = 0, 1, 6

_libc = ctypes.CDLL(None, use_errno=True)


def _syscall(*arguments: object) -> int:
    result = int(_libc.syscall(*arguments))
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))
    return result


class Ring:
    """A ring of one entry."""

    def __init__(self, fd: int, params: bytes) -> None:
        self._fd = fd
        self._offsets = SQ_OFFSETS.unpack_from(params, SQ_OFFSETS_AT)
        size = self._offsets[ARRAY] + 4 * ENTRIES
        self._ring = mmap.mmap(fd, size, offset=IORING_OFF_SQ_RING)
        self._entries = mmap.mmap(fd, SQE_BYTES * ENTRIES, offset=IORING_OFF_SQES)

    def close_descriptor(self, fd: int) -> None:
        """Close `fd` as the ring does; returns when it is done."""
        self._entries[:] = struct.pack("BBHi", IORING_OP_CLOSE, 0, 0, fd).ljust(SQE_BYTES, b"\0")
        tail_at = self._offsets[TAIL]
        (tail,) = struct.unpack_from("I", self._ring, tail_at)
        struct.pack_into("I", self._ring, self._offsets[ARRAY], 0)
        struct.pack_into("I", self._ring, tail_at, tail + 1)
        _syscall(SYS_IO_URING_ENTER, self._fd, 1, 1, IORING_ENTER_GETEVENTS, None, 0)

    def release(self) -> None:
        """Unmap."""
        self._ring.close()
        self._entries.close()


@contextlib.contextmanager
def ring() -> Iterator[Ring]:
    """Make a ring; raises OSError where io_uring is missing or forbidden."""
    params = ctypes.create_string_buffer(PARAMS_BYTES)
    fd = _syscall(SYS_IO_URING_SETUP, ENTRIES, params)
    try:
        made = Ring(fd, params.raw)
        with contextlib.closing(_Releasing(made)):
            yield made
    finally:
        os.close(fd)


class _Releasing:
    def __init__(self, made: Ring) -> None:
        self.close = made.release
