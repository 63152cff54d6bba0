# SPDX-License-Identifier: Apache-2.0
"""Records that wait: each is copied once on its way in and once on its way out.

What decides about a record lies beside it in columns of its own, in order of arrival; the
records themselves stay where they are until they go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tracer.columns import taken, whole
from tracer.wire import CLOSE_DTYPE

if TYPE_CHECKING:
    from tracer.columns import Index, Mask
    from tracer.wire import Records

Times = npt.NDArray[np.int64]

ROOM_MIN = 256
"""Records there is always room for."""


class Waiting:
    """Records by their place in a pool that grows and shrinks with how many there are."""

    def __init__(self) -> None:
        self._pool = np.empty(ROOM_MIN, CLOSE_DTYPE)
        self._free: Index = np.arange(ROOM_MIN)
        self.places: Index = np.empty(0, np.intp)
        """Of each in `records`, in order of arrival."""
        self.cookies = np.empty(0, np.uint64)
        self.closed_ns: Times = np.empty(0, np.int64)
        self.since_ns: Times = np.empty(0, np.int64)
        """Time of the batch each was seen in."""

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self.places)

    @property
    def records(self) -> Records:
        """The pool; what is at a place of `places` may be changed there."""
        return self._pool

    def add(self, records: Records, which: Mask, mono_ns: int) -> None:
        """Take these, seen in a batch of that time."""
        index = np.flatnonzero(which)
        if not len(index):
            return
        places = self._take_places(len(index))
        whole(self._pool)[places] = whole(records)[index]
        self.places = np.concatenate((self.places, places))
        self.cookies = np.concatenate((self.cookies, records["cookie"][index]))
        closed_ns = records["closed_ns"][index].astype(np.int64)
        self.closed_ns = np.concatenate((self.closed_ns, closed_ns))
        self.since_ns = np.concatenate((self.since_ns, np.full(len(index), mono_ns)))

    def release(self, which: Mask) -> Records:
        """Let these go, and return them in order of arrival."""
        if not which.any():
            return self._pool[:0]
        places, stay = self.places[which], ~which
        released = taken(self._pool, places)
        self._free = np.concatenate((self._free, places))
        self.places, self.cookies = self.places[stay], self.cookies[stay]
        self.closed_ns, self.since_ns = self.closed_ns[stay], self.since_ns[stay]
        if len(self._pool) > max(ROOM_MIN, 8 * len(self)):
            self._move(max(ROOM_MIN, 2 * len(self)))
        return released

    def release_all(self) -> Records:
        """Let all of them go."""
        return self.release(np.ones(len(self), np.bool_))

    def _take_places(self, count: int) -> Index:
        if count > len(self._free):
            self._move(2 * (len(self) + count))
        places, self._free = self._free[:count], self._free[count:]
        return places

    def _move(self, room: int) -> None:
        # To a pool of another size, the records in a row from its beginning.
        pool = np.empty(room, CLOSE_DTYPE)
        whole(pool)[: len(self)] = whole(self._pool)[self.places]
        self._pool = pool
        self.places = np.arange(len(self))
        self._free = np.arange(len(self), room)
