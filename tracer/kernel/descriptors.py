# SPDX-License-Identifier: Apache-2.0
"""Which process holds which socket, as /proc tells: where the kernel refuses iterators."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("descriptors",)

_SOCKET_LINK: Final = re.compile(r"socket:\[(\d+)\]")


def descriptors() -> Iterator[tuple[int, int, bytes, int, int]]:
    """Yield tgid, its start in ns, comm, fd and inode of every socket of every process."""
    for name in os.listdir("/proc"):  # noqa: PTH208 - names only
        if name.isdigit():
            with suppress(OSError):
                yield from _of_process(name)


def _of_process(pid: str) -> Iterator[tuple[int, int, bytes, int, int]]:
    comm, start_ns = _stat(Path(f"/proc/{pid}/stat").read_bytes())
    for fd in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - names only
        with suppress(OSError):
            link = os.readlink(f"/proc/{pid}/fd/{fd}")  # noqa: PTH115 - one per descriptor
            match = _SOCKET_LINK.fullmatch(link)
            if match:
                yield int(pid), start_ns, comm, int(fd), int(match[1])


# "1 (comm) S …": the name may hold blanks and brackets; the 22nd field is the start in ticks.
def _stat(line: bytes) -> tuple[bytes, int]:
    comm = line[line.index(b"(") + 1 : line.rindex(b")")]
    ticks = int(line[line.rindex(b")") + 1 :].split()[19])
    return comm, ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
