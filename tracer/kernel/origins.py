# SPDX-License-Identifier: Apache-2.0
"""Where sockets came from, as the programs of bpf/origins.bpf.c have noted it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tracer.kernel.maps import look_up, read_all
from tracer.kernel.symbols import Symbols
from tracer.origins import Frame, How, Origin, Origins

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from tracer.census import Rows
    from tracer.kernel.launch import Loaded

__all__ = ("FRAMES_MAX", "ORIGIN", "PREFIX", "OriginSource")

PREFIX: Final = "origins:"
"""Of the descriptors the loader hands over."""
FRAMES_MAX: Final = 32
STACK_TOP_WORDS: Final = 16
STACKS_MAX: Final = 3  # of a group
PROCESSES_MAX: Final = 16  # asked for the names of one stack
NAMED_MAX: Final = 4_096  # stacks whose names are remembered
ORIGIN: Final = np.dtype(
    [
        ("start_ns", "<u8"),
        ("tgid", "<u4"),
        ("stack", "<u4"),
        ("comm", "u1", (16,)),
        ("how", "u1"),
        ("pad", "u1", (7,)),
        ("top", "<u8", (STACK_TOP_WORDS,)),
    ],
    align=True,
)
"""struct origin of bpf/origins.h."""
_CALLED = np.dtype([("start_ns", "<u8"), ("caller", "<u8"), ("tgid", "<u4"), ("stack", "<u4"),
                    ("comm", "u1", (16,)), ("how", "u1")])  # fmt: skip
LOSSES: Final = 2
"""ORIGIN_LOSSES of bpf/origins.h."""
_WORD_BYTES: Final = 8
_COOKIE: Final = np.dtype("<u8")


class OriginSource:
    """The origins of live sockets on demand; detached on close()."""

    def __init__(self, loaded: Loaded) -> None:
        """Take over what the loader has loaded for this."""
        ours = [name for name in loaded.fds if name.startswith(PREFIX)]
        self._fds = {name.removeprefix(PREFIX): loaded.fds.pop(name) for name in ours}
        self.told: dict[str, Any] = loaded.manifest["origins"]
        self._symbols = Symbols()
        self._offsets: dict[int, int] = {}
        self._named: dict[tuple[int, ...], tuple[Frame, ...]] = {}

    @property
    def refusal(self) -> str | None:
        """Why there are none, None when there are."""
        return None if self._fds else f"{self.told['stage']}: {self.told['message']}"

    @property
    def left_out(self) -> int:
        """How many stacks were not noted: no room, or not readable."""
        fd = self._fds["map:origin_losses"]
        counts = [look_up(fd, number, 4, 8) or b"" for number in range(LOSSES)]
        return sum(int.from_bytes(count, "little") for count in counts)

    def of(self, groups: Sequence[Sequence[int]]) -> list[Origins]:
        """Return where the sockets of each group, given by cookies, came from. Raises OSError."""
        cookies, origins = read_all(self._fds["map:origins"], _COOKIE, ORIGIN)
        return [self._of(np.isin(cookies, list(group)), origins, len(group)) for group in groups]

    def _of(self, chosen: npt.NDArray[np.bool_], origins: Rows, asked: int) -> Origins:
        mine = self._with_callers(origins[chosen])
        kinds, counts = np.unique(mine[["stack", "caller"]], return_counts=True)
        most = np.argsort(-counts, kind="stable")[:STACKS_MAX]
        stacks = [
            self._origin(mine[mine[["stack", "caller"]] == kinds[i]], int(counts[i]))
            for i in most.tolist()
        ]
        return Origins(tuple(stacks), asked, asked - len(mine))

    # Whom the kernel passed by: the same word of all that were at the same place.
    def _with_callers(self, origins: Rows) -> Rows:
        rows = np.zeros(len(origins), _CALLED)
        for name in ("start_ns", "tgid", "stack", "comm", "how"):
            rows[name] = origins[name]
        for stack in np.unique(origins["stack"]).tolist():
            same = origins["stack"] == stack
            offset = self._return_offset(stack, origins[same])
            if offset is not None and 0 <= offset < ORIGIN["top"].itemsize:
                rows["caller"][same] = origins["top"][same, offset // _WORD_BYTES]
        return rows

    # Remembered while it is known: the process may be gone at the next look.
    def _return_offset(self, stack: int, rows: Rows) -> int | None:
        addresses = self._addresses(stack)
        for row in rows[:PROCESSES_MAX] if addresses and stack not in self._offsets else ():
            process = int(row["tgid"]), int(row["start_ns"])
            offset = self._symbols.return_offset(*process, addresses[0])
            if offset is not None:
                self._offsets[stack] = offset
                break
        return self._offsets.get(stack)

    # Forks share stacks: one that is there still has names for them.
    def _origin(self, rows: Rows, count: int) -> Origin:
        _, first = np.unique(rows[["tgid", "start_ns"]], return_index=True)
        for row in rows[first][:PROCESSES_MAX]:
            frames = self._frames(row)
            if frames is not None:
                return _origin(row, count, frames, gone=False)
        unnamed = tuple(Frame(None, None, address) for address in self._path(rows[0]))
        return _origin(rows[0], count, unnamed, gone=True)

    def _frames(self, row: npt.NDArray[np.void]) -> tuple[Frame, ...] | None:
        key = tuple(int(row[name]) for name in ("tgid", "start_ns", "stack", "caller"))
        found = self._named.get(key)
        if found is None:
            found = self._symbols.frames(int(row["tgid"]), int(row["start_ns"]), self._path(row))
            if found is not None:
                self._remember(key, found)
        return found

    def _path(self, row: npt.NDArray[np.void]) -> list[int]:
        addresses, caller = self._addresses(int(row["stack"])), int(row["caller"])
        return [*addresses[:1], caller, *addresses[1:]] if caller else addresses

    def _remember(self, key: tuple[int, ...], frames: tuple[Frame, ...]) -> None:
        if len(self._named) >= NAMED_MAX:
            del self._named[next(iter(self._named))]
        self._named[key] = frames

    def _addresses(self, stack: int) -> list[int]:
        found = look_up(self._fds["map:user_stacks"], stack, 4, 8 * FRAMES_MAX)
        if found is None:
            return []
        return [int(one) for one in np.frombuffer(found, "<u8") if one]

    def close(self) -> None:
        """Detach everything."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds = {}


def _origin(
    row: npt.NDArray[np.void], count: int, frames: tuple[Frame, ...], *, gone: bool
) -> Origin:
    comm = row["comm"].tobytes()
    return Origin(How(int(row["how"])), int(row["tgid"]), comm, count, frames, gone)
