# SPDX-License-Identifier: Apache-2.0
"""What the kernel side counts per CPU, read without a system call."""

from __future__ import annotations

import mmap

import numpy as np

__all__ = ("CpuSlots",)


class CpuSlots:
    """A mapped array of one slot per possible CPU, each a struct that begins with u64 totals."""

    def __init__(self, fd: int, slots: int, slot_bytes: int) -> None:
        """Map `slots` slots of the mmapable array `fd`. Raises OSError."""
        pages = -(-slots * slot_bytes // mmap.PAGESIZE)
        self._map = mmap.mmap(fd, pages * mmap.PAGESIZE, prot=mmap.PROT_READ)
        words = np.frombuffer(self._map, np.uint64, slots * slot_bytes // 8)
        self._words = words.reshape(slots, -1)

    def totals(self, words: int) -> list[int]:
        """Return the first `words` words of a slot, each added up over all CPUs."""
        totals: list[int] = self._words[:, :words].sum(axis=0).tolist()
        return totals

    def content(self) -> bytes:
        """Return all slots as they are, for comparison alone."""
        return self._map[:]

    def close(self) -> None:
        """Unmap."""
        del self._words
        self._map.close()
