# SPDX-License-Identifier: Apache-2.0
"""BPF instructions as bytes: constants put in after the compiler."""

from __future__ import annotations

import struct

__all__ = ("with_constant",)

_LD_IMM64 = 0x18


def with_constant(code: bytes, mark: int, value: int) -> bytes:
    """Return the instructions with every 64-bit immediate equal to `mark` replaced."""
    out = bytearray(code)
    at = 0
    while at < len(out):
        wide = out[at] == _LD_IMM64
        plain = wide and not out[at + 1] >> 4  # a source register says: a map, not a number
        if plain and struct.unpack_from("=I4xI", out, at + 4) == (mark, 0):
            struct.pack_into("=I", out, at + 4, value)
        at += 16 if wide else 8
    return bytes(out)
