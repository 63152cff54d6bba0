# SPDX-License-Identifier: Apache-2.0
"""RSTs of this host that belong to no connection, as the kernel side counts them."""

from __future__ import annotations

import struct

from tracer.kernel.bpf import map_items

__all__ = ("STRAYS_MAX", "Strays")

STRAYS_MAX = 512  # what is told apart; the rest is counted in one number
_KEY = struct.Struct("=IHBB")  # struct stray_key: netns, lport, reason, cause
_COUNT = struct.Struct("=Q")


class Strays:
    """A bounded hash in the kernel, read whole with one system call."""

    def __init__(self, fd: int) -> None:
        """Read from this map; whoever opened it closes it."""
        self._fd = fd

    def read(self) -> list[list[int]]:
        """Return [netns, lport, cause, reason, count] of each, totals since attach.

        Raises OSError when the kernel refuses.
        """
        rows = []
        for key, value in map_items(self._fd, _KEY.size, _COUNT.size, STRAYS_MAX):
            netns, lport, reason, cause = _KEY.unpack(key)
            rows.append([netns, lport, cause, reason, *_COUNT.unpack(value)])
        return sorted(rows)
