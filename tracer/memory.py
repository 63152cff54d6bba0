# SPDX-License-Identifier: Apache-2.0
"""Memory of a process that stays: what starting took is given back.

malloc_trim(3) and mallopt(3) are glibc's; with another C library nothing is done.
"""

from __future__ import annotations

import ctypes
import gc
from typing import Final

_M_ARENA_MAX: Final = -8  # malloc.h
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
