# SPDX-License-Identifier: Apache-2.0
"""A page that makes whoever touches it wait: userfaultfd(2).

recv() into it keeps the socket locked by its process for as long as the test likes.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import select
import struct
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

SYS_USERFAULTFD = 323  # x86-64
UFFDIO_API, UFFD_API = 0xC018AA3F, 0xAA
UFFDIO_REGISTER, REGISTER_MODE_MISSING = 0xC020AA00, 1
UFFDIO_ZEROPAGE = 0xC020AA04
FAULT_MS = 10_000

_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def locked_in_recv(sock: socket.socket) -> Iterator[None]:
    """Keep `sock`, which has bytes to read, locked by a recv() until the body ends.

    Raises OSError where userfaultfd is missing or forbidden.
    """
    with _trap() as (fault_fd, address):
        reader = threading.Thread(target=_libc.recv, args=(sock.fileno(), address, 1, 0))
        reader.start()
        try:
            ready, _, _ = select.select([fault_fd], [], [], FAULT_MS / 1_000)
            assert ready, "recv() never touched the page"
            yield
        finally:
            request = struct.pack("QQQq", address.value or 0, mmap.PAGESIZE, 0, 0)
            fcntl.ioctl(fault_fd, UFFDIO_ZEROPAGE, bytearray(request))
            reader.join()


@contextlib.contextmanager
def _trap() -> Iterator[tuple[int, ctypes.c_void_p]]:
    fault_fd = int(_libc.syscall(SYS_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK))
    if fault_fd < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))
    page = mmap.mmap(-1, mmap.PAGESIZE)
    try:
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        fcntl.ioctl(fault_fd, UFFDIO_API, bytearray(struct.pack("QQQ", UFFD_API, 0, 0)))
        request = struct.pack("QQQQ", address, mmap.PAGESIZE, REGISTER_MODE_MISSING, 0)
        fcntl.ioctl(fault_fd, UFFDIO_REGISTER, bytearray(request))
        yield fault_fd, ctypes.c_void_p(address)
    finally:
        os.close(fault_fd)
