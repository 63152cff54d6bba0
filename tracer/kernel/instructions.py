# SPDX-License-Identifier: Apache-2.0
"""BPF instructions as bytes: constants put in after the compiler, and where maps are named."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ("map_loads", "with_constant", "with_maps")

_LD_IMM64 = 0x18
_PSEUDO_MAP_FD = 1  # as the source register: the immediate is a map's descriptor


def with_constant(code: bytes, mark: int, value: int) -> bytes:
    """Return the instructions with every 64-bit immediate equal to `mark` replaced."""
    out = bytearray(code)
    for at, source in _wide_loads(code):
        # Any source register says: not a number.
        if not source and struct.unpack_from("=I4xI", out, at) == (mark, 0):
            struct.pack_into("=I", out, at, value)
    return bytes(out)


def map_loads(code: bytes | bytearray) -> list[int]:
    """Return the offsets of every map's descriptor, 4 bytes each.

    Raises ValueError for any other reference to something of this process or this kernel.
    """
    found = []
    for at, source in _wide_loads(code):
        if source not in (0, _PSEUDO_MAP_FD):
            raise ValueError(f"a reference of kind {source} at byte {at}")
        if source:
            found.append(at)
    return found


def with_maps(code: bytes, others: Mapping[int, int]) -> bytes:
    """Return the instructions with other maps in place of some, descriptor by descriptor."""
    out = bytearray(code)
    for at in map_loads(code):
        fd = struct.unpack_from("=i", out, at)[0]
        struct.pack_into("=i", out, at, others.get(fd, fd))
    return bytes(out)


# Offset of the low immediate, and the source register, of every 64-bit load of a constant.
def _wide_loads(code: bytes | bytearray) -> Iterator[tuple[int, int]]:
    at = 0
    while at < len(code):
        wide = code[at] == _LD_IMM64
        if wide:
            yield at + 4, code[at + 1] >> 4
        at += 16 if wide else 8
