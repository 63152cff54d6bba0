# SPDX-License-Identifier: Apache-2.0
"""Memory of a process that stays: what starting took is given back.

malloc_trim(3) and mallopt(3) are glibc's; with another C library nothing is done.
"""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # malloc.h
LARGE_BYTES: Final = 1 << 20
_MADV_DONTNEED: Final = 4
_libc = ctypes.CDLL(None)


def keep_little() -> None:
    """Give large arrays back at once, and let threads that come and go use the first one's arena.

    Left alone, malloc keeps for good what a large census took. Call this before all else.
    """
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        _libc.mallopt(_M_ARENA_MAX, 1)


def settle() -> None:
    """Give back what starting took, and let the collector pass over all that is there now."""
    gc.collect()
    gc.freeze()
    _drop_files()
    trim()


def trim() -> None:
    """Give back what is free."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(ctypes.c_size_t(0))


# What of programs and libraries is used again comes back from the page cache, the much larger part
# that only starting took does not. What was written is no file's any more: relocated data, though
# made read-only later.
def _drop_files() -> None:
    with Path("/proc/self/smaps").open() as smaps:
        unwritten = list(_unwritten(smaps))
    for start, end in unwritten:
        _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)


# The lines of a mapping's facts follow the line that says where it is.
def _unwritten(smaps: Iterable[str]) -> Iterator[tuple[int, int]]:
    where, of_file = "", False
    for line in smaps:
        name, *facts = line.split()
        if not name.endswith(":"):
            rights, _, _, inode = facts[:4]
            where, of_file = name, inode != "0" and "w" not in rights
        elif name == "Anonymous:" and of_file and facts[0] == "0":
            start, end = where.split("-")
            yield int(start, 16), int(end, 16)
