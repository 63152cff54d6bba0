# SPDX-License-Identifier: Apache-2.0
"""RSTs of this host that belong to no connection, as the kernel side counts them."""

from __future__ import annotations

import numpy as np

from tracer.kernel.maps import read_all

__all__ = ("KEY_DTYPE", "Strays")

KEY_DTYPE = np.dtype([("netns", "u4"), ("lport", "u2"), ("reason", "u1"), ("cause", "u1")])
"""struct stray_key."""
_COUNT = np.dtype("u8")


class Strays:
    """A bounded hash in the kernel, read whole."""

    def __init__(self, fd: int) -> None:
        """Read from this map; whoever opened it closes it."""
        self._fd = fd

    def read(self) -> list[list[int]]:
        """Return [netns, lport, cause, reason, count] of each, totals since attach.

        Raises OSError when the kernel refuses.
        """
        keys, counts = read_all(self._fd, KEY_DTYPE, _COUNT)
        columns = (keys[name].tolist() for name in ("netns", "lport", "cause", "reason"))
        return sorted(map(list, zip(*columns, counts.tolist(), strict=True)))
