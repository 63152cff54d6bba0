# SPDX-License-Identifier: Apache-2.0
"""What is mounted where, as a process sees it: proc_pid_mountinfo(5)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("Mount", "read_mounts")

_ESCAPED: Final = re.compile(rb"\\([0-7]{3})")


class Mount(NamedTuple):
    """One line. Bytes: a mount point is anybody's."""

    root: bytes
    """What of the file system is mounted there."""
    point: bytes
    fstype: bytes


def read_mounts(mountinfo: str) -> Iterator[Mount]:
    """Yield the mounts of such a file, of which lines that are none are left out. Raises OSError.

    "… ROOT POINT OPTIONS [TAG:VALUE …] - FSTYPE SOURCE OPTIONS"
    """
    for line in Path(mountinfo).read_bytes().splitlines():
        left, _, right = line.partition(b" - ")
        fields = left.split(b" ")
        if len(fields) > 5:
            yield Mount(fields[3], _unescaped(fields[4]), right.partition(b" ")[0])


# Blanks and backslashes: fs/seq_file.c mangle_path().
def _unescaped(path: bytes) -> bytes:
    return _ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), path)
