# SPDX-License-Identifier: Apache-2.0
"""From addresses of a process to names: its mappings, the files they are of, and its perf map.

Files are opened through /proc/PID/map_files: the very file that is mapped, whatever container it
is in and whether its name is there still. Code that no file has is named by /tmp/perf-PID.map of
the process's own root, which JITs and Python's perf trampoline write (`python -X perf`).
"""

from __future__ import annotations

import bisect
import errno
import itertools
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple, TypeAlias, TypeVar

from tracer.kernel.elf_frames import read_call_frames
from tracer.kernel.elf_symbols import NAME_BYTES_MAX, read_functions
from tracer.kernel.processes import start_ticks
from tracer.origins import Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tracer.kernel.elf_frames import CallFrames
    from tracer.kernel.elf_symbols import Functions

__all__ = ("Symbols",)

FILES_MAX: Final = 512
"""Whose tables are remembered, of all processes."""
MAPPINGS_MAX: Final = 1 << 16
PERF_MAP_BYTES_MAX: Final = 1 << 26
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


File: TypeAlias = tuple[str, int]
"""Device and inode."""
Read = TypeVar("Read")


class Mapping(NamedTuple):
    """Code of a process: a line of /proc/PID/maps."""

    start: int
    end: int
    offset: int
    file: File | None
    path: str


class Symbols:
    """Names frames; remembers the tables of files, as they are large."""

    def __init__(self) -> None:
        self._functions: dict[File, Functions | None] = {}
        self._call_frames: dict[File, CallFrames | None] = {}

    def frames(self, pid: int, start_ns: int, addresses: Sequence[int]) -> tuple[Frame, ...] | None:
        """Return a frame per address; None when the process is gone, or is another by now.

        `start_ns`: CLOCK_BOOTTIME of its start. Where an address is none of its code the kernel
        was led astray by a function without a frame pointer: that and all after is left out.
        """
        try:
            process = _Process(pid, start_ns)
            code = list(itertools.takewhile(lambda at: process.mapping(at - 1), addresses))
            named = tuple(self._frame(process, address) for address in code)
        except OSError:
            return None
        return named

    def return_offset(self, pid: int, start_ns: int, address: int) -> int | None:
        """Return how far above the stack pointer the function there keeps its return address.

        In bytes; None when it is not known, or the function has a frame pointer.
        """
        try:
            process = _Process(pid, start_ns)
        except OSError:
            return None
        mapping = process.mapping(address - 1)
        if mapping is None or mapping.file is None:
            return None
        frames = _remembered(self._call_frames, pid, mapping, read_call_frames)
        return frames.return_offset(self._where(pid, mapping, address - 1)) if frames else None

    # Where a call goes on is one byte behind it, and may be another function.
    def _frame(self, process: _Process, address: int) -> Frame:
        at = address - 1
        mapping = process.mapping(at)
        if mapping is None or mapping.file is None:
            return process.compiled(at) or Frame(None, mapping and _name(mapping.path), address)
        where = self._where(process.pid, mapping, at)
        functions = self._named_by(process.pid, mapping)
        found = functions.at(where) if functions else None
        if found:
            symbol, into = found
            return Frame(symbol, _name(mapping.path), into + 1)
        # What is compiled into memory that is shared lies in a file, too.
        return process.compiled(at) or Frame(None, _name(mapping.path), where + 1)

    # The file's own address of what is mapped there.
    def _where(self, pid: int, mapping: Mapping, address: int) -> int:
        offset, functions = address - mapping.start + mapping.offset, self._named_by(pid, mapping)
        return functions.address(offset) if functions else offset

    def _named_by(self, pid: int, mapping: Mapping) -> Functions | None:
        return _remembered(self._functions, pid, mapping, read_functions)


def _remembered(
    known: dict[File, Read | None],
    pid: int,
    mapping: Mapping,
    read: Callable[[BinaryIO], Read | None],
) -> Read | None:
    assert mapping.file is not None
    if mapping.file not in known:
        if len(known) >= FILES_MAX:
            del known[next(iter(known))]
        known[mapping.file] = _read(pid, mapping, read)
    return known[mapping.file]


def _start(pid: int) -> int:
    return start_ticks(Path(f"/proc/{pid}/stat").read_bytes().decode("utf-8", "replace"))


class _Process:
    def __init__(self, pid: int, start_ns: int) -> None:
        if _start(pid) != start_ns * _TICKS_PER_S // 1_000_000_000:
            raise ProcessLookupError(errno.ESRCH, "another process has its number")
        self.pid = pid
        self._mappings = list(_mappings(pid))
        if not self._mappings:
            raise ProcessLookupError(errno.ESRCH, "nobody has waited for it yet")
        self._starts = [one.start for one in self._mappings]
        self._perf_map: list[tuple[int, int, str]] | None = None

    def mapping(self, address: int) -> Mapping | None:
        place = bisect.bisect_right(self._starts, address) - 1
        if place < 0 or address >= self._mappings[place].end:
            return None
        return self._mappings[place]

    # What was compiled later may lie where something else did before: the last line counts.
    def compiled(self, address: int) -> Frame | None:
        if self._perf_map is None:
            self._perf_map = list(_perf_map(self.pid))
        for start, size, name in reversed(self._perf_map):
            if start <= address < start + size:
                return Frame(name, None, address + 1 - start)
        return None


# "7f0c6a400000-7f0c6a428000 r-xp 00028000 fe:01 1234   /usr/lib/libc.so.6"
def _mappings(pid: int) -> Iterator[Mapping]:
    with Path(f"/proc/{pid}/maps").open("rb") as lines:
        for _, line in zip(range(MAPPINGS_MAX), lines, strict=False):
            span, rights, offset, device, inode, *path = line.split(maxsplit=5)
            if b"x" not in rights:
                continue
            start, end = (int(edge, 16) for edge in span.split(b"-"))
            number = int(inode)
            file = (device.decode(), number) if number else None
            name = path[0].rstrip(b"\n").decode("utf-8", "surrogateescape") if path else ""
            yield Mapping(start, end, int(offset, 16), file, name)


def _name(path: str) -> str | None:
    return path.rpartition("/")[2][:NAME_BYTES_MAX] or None


# Where map_files is refused, by the file's name below the process's root.
def _read(pid: int, mapping: Mapping, read: Callable[[BinaryIO], Read | None]) -> Read | None:
    places = (f"map_files/{mapping.start:x}-{mapping.end:x}", f"root{mapping.path}")
    for place in places:
        with suppress(OSError), os.fdopen(_open(f"/proc/{pid}/{place}"), "rb") as file:
            return read(file)
    return None


# Never a device or a pipe: opening these may block, or do something.
def _open(path: str, flags: int = 0) -> int:
    fd = os.open(os.fsencode(path), os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | flags)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(f"{path} is no file")
    return fd


# "7f1c2a0000 40 py::handle:/srv/app.py"; the number is the one in its own PID namespace.
def _perf_map(pid: int) -> Iterator[tuple[int, int, str]]:
    with suppress(OSError):
        path = f"/proc/{pid}/root/tmp/perf-{_own_number(pid)}.map"
        with os.fdopen(_open(path, os.O_NOFOLLOW), "rb") as file:
            if os.fstat(file.fileno()).st_uid not in (0, _uid(pid)):
                return
            text = file.read(PERF_MAP_BYTES_MAX)
        for line in text.splitlines():
            with suppress(ValueError):
                start, size, name = line.split(maxsplit=2)
                bounded = name[:NAME_BYTES_MAX].decode("utf-8", "surrogateescape")
                yield int(start, 16), int(size, 16), bounded


def _own_number(pid: int) -> int:
    return int(_status(pid)["NSpid"].split()[-1])


def _uid(pid: int) -> int:
    return int(_status(pid)["Uid"].split()[1])


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_bytes().decode("utf-8", "replace").splitlines()
    return {name: value for name, _, value in (line.partition(":") for line in lines)}
