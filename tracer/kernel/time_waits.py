# SPDX-License-Identifier: Apache-2.0
"""What becomes of mini-sockets in TIME_WAIT, as the kernel side counts it where hooks can tell."""

from __future__ import annotations

import mmap
from typing import Final

import numpy as np

__all__ = ("TimeWaits",)

_SLOT_BYTES: Final = 128  # struct time_waits
_CHANGES: Final = 8  # its first words, by enum tw_change


class TimeWaits:
    """One slot per CPU, read without a system call."""

    def __init__(self, fd: int, slots: int) -> None:
        """Map `slots` slots of the mmapable array `fd`."""
        pages = -(-slots * _SLOT_BYTES // mmap.PAGESIZE)
        self._map = mmap.mmap(fd, pages * mmap.PAGESIZE, prot=mmap.PROT_READ)
        words = np.frombuffer(self._map, np.uint64, slots * _SLOT_BYTES // 8)
        self._changes = words.reshape(slots, -1)[:, :_CHANGES]

    def read(self) -> list[int]:
        """Return totals since attach by number of enum tw_change."""
        totals: list[int] = self._changes.sum(axis=0).tolist()
        return totals

    def close(self) -> None:
        """Unmap."""
        del self._changes
        self._map.close()
