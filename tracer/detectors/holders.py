# SPDX-License-Identifier: Apache-2.0
"""Which processes hold which sockets, and sockets held by the very same processes together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from tracer.close_text import cgroup_path, comm

if TYPE_CHECKING:
    import numpy.typing as npt

    from tracer.census import Census, Rows
    from tracer.detectors.rows import Numbers

NOBODY: Final = -1
NAMED_MAX: Final = 8  # of one set: a listener may be shared by hundreds of workers

# splitmix64's: a sum of well mixed numbers tells sets apart.
_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds a socket; None where it was gone before it could be asked."""

    pid: int
    comm: str
    start_ns: int
    nofile_soft: int | None = None
    open_fds: int | None = None
    cgroup: str | None = None


class Holders:
    """The owners of a census, by inode. A process with several descriptors counts once."""

    def __init__(self, census: Census) -> None:
        self._census = census
        owners = census.owners
        order = np.lexsort((owners["fd"], owners["tgid"], owners["ino"]))
        rows = owners[order]
        fresh = np.ones(len(rows), np.bool_)
        fresh[1:] = (np.diff(rows["ino"]) != 0) | (np.diff(rows["tgid"]) != 0)
        self._rows = rows[fresh]
        self._inos, self._starts, counts = np.unique(
            self._rows["ino"], return_index=True, return_counts=True
        )
        self._ends = self._starts + counts
        self._set_of_ino = self._number_sets()

    # By how many and which: 64 bits for some thousand sets, an accident is not to be expected.
    def _number_sets(self) -> Numbers:
        if not len(self._rows):
            return np.zeros(0, np.int64)
        prints = np.add.reduceat(_mixed(self._rows["tgid"]), self._starts)
        return np.unique(prints, return_inverse=True)[1].astype(np.int64)

    def rows_of(self, inos: npt.NDArray[np.uint64]) -> Numbers:
        """Return the place of each inode among the held ones, NOBODY where nobody holds it."""
        if not len(self._inos):
            return np.full(len(inos), NOBODY, np.int64)
        place = np.searchsorted(self._inos, inos).clip(max=len(self._inos) - 1)
        found: Numbers = np.where(self._inos[place] == inos, place, NOBODY).astype(np.int64)
        return found

    def sets(self, inos: npt.NDArray[np.uint64]) -> Numbers:
        """Return a number per inode: equal where the same processes hold it; NOBODY."""
        place = self.rows_of(inos)
        if not len(self._inos):
            return place
        return np.where(place >= 0, self._set_of_ino[place], NOBODY)

    def of(self, ino: int) -> tuple[tuple[Holder, ...], int]:
        """Return who holds the inode, lowest pid first and no more than a few, and how many do."""
        return self.of_any(np.array([ino], np.uint64))

    def of_any(self, inos: npt.NDArray[np.uint64]) -> tuple[tuple[Holder, ...], int]:
        """Return who holds any of the inodes, as of()."""
        rows = np.concatenate([self._rows[:0], *map(self._of, inos.tolist())])
        _, first = np.unique(rows["tgid"], return_index=True)
        return tuple(self._holder(row) for row in rows[first[:NAMED_MAX]]), len(first)

    def fd_of(self, ino: int) -> int | None:
        """Return the lowest descriptor of the first holder, None when nobody holds it."""
        rows = self._of(ino)
        return int(rows["fd"][0]) if len(rows) else None

    def _of(self, ino: int) -> Rows:
        place = int(self.rows_of(np.array([ino], np.uint64))[0])
        if place == NOBODY:
            return self._rows[:0]
        return self._rows[self._starts[place] : self._ends[place]]

    def _holder(self, row: npt.NDArray[np.void]) -> Holder:
        pid = int(row["tgid"])
        facts = self._census.processes.get(pid)
        return Holder(
            pid=pid,
            comm=comm(bytes(row["comm"])),
            start_ns=int(row["start_ns"]),
            nofile_soft=facts.nofile_soft if facts else None,
            open_fds=facts.open_fds if facts else None,
            cgroup=cgroup_path(facts.cgroup) if facts else None,
        )


def _mixed(numbers: npt.NDArray[np.generic]) -> npt.NDArray[np.uint64]:
    mixed = numbers.astype(np.uint64) + np.uint64(1)
    mixed *= _MIX[0]
    mixed ^= mixed >> np.uint64(30)
    mixed *= _MIX[1]
    mixed ^= mixed >> np.uint64(27)
    mixed *= _MIX[2]
    mixed ^= mixed >> np.uint64(31)
    return mixed
