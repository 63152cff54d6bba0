# SPDX-License-Identifier: Apache-2.0
"""Memory of a process that stays: what starting took is given back.

malloc_trim(3) and mallopt(3) are glibc's; with another C library nothing is done.
"""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path
from typing import Final

_M_ARENA_MAX: Final = -8  # malloc.h
_MADV_DONTNEED: Final = 4
_libc = ctypes.CDLL(None)


def share_one_arena() -> None:
    """Let threads that come and go allocate where the first one does. Before any is started."""
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_ARENA_MAX, 1)


def settle() -> None:
    """Give back what is free, and let the collector pass over all that is there now."""
    gc.collect()
    gc.freeze()
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(ctypes.c_size_t(0))
    _drop_text()


# What of programs and libraries is used again comes back from the page cache, the much larger part
# that only starting took does not. Text is never written, unlike data made read-only later.
def _drop_text() -> None:
    for line in Path("/proc/self/maps").read_text().splitlines():
        where, rights, _, _, inode, *_ = line.split()
        if inode != "0" and rights == "r-xp":
            start, end = (int(address, 16) for address in where.split("-"))
            _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)
