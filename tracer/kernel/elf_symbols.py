# SPDX-License-Identifier: Apache-2.0
"""The functions an ELF file names: .symtab, .dynsym, and the .symtab within .gnu_debugdata.

Tables are read as arrays: a browser's has a million symbols. A file is anybody's: sizes are
bounded, and whatever is wrong with it means that it names nothing.
"""

from __future__ import annotations

import io
import lzma
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

import numpy as np
from elftools.elf.elffile import ELFFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

__all__ = ("Functions", "opened", "read_functions")

NAME_BYTES_MAX: Final = 200
TABLE_BYTES_MAX: Final = 1 << 28
PACKED_BYTES_MAX: Final = 1 << 26
"""Of .gnu_debugdata, unpacked; and of what lzma may take for that."""
PARTS_MAX: Final = 4_096
"""Sections, and segments: a sparse file may claim billions."""
_FUNCTION_TYPES: Final = (2, 10)  # STT_FUNC, STT_GNU_IFUNC
_SYMBOL = {
    32: [("name", "u4"), ("value", "u4"), ("size", "u4"), ("info", "u1"), ("other", "u1"),
         ("section", "u2")],
    64: [("name", "u4"), ("info", "u1"), ("other", "u1"), ("section", "u2"), ("value", "u8"),
         ("size", "u8")],
}  # fmt: skip


class Functions:
    """The functions of one file by address, and where the file's bytes are mapped to."""

    def __init__(self, segments: list[_Segment], tables: list[_Table]) -> None:
        self._segments = segments
        self._tables = tables

    def address(self, offset: int) -> int:
        """Return the file's own address of a byte of it."""
        for one in self._segments:
            if one.offset <= offset < one.offset + one.size:
                return offset - one.offset + one.address
        return offset

    def at(self, address: int) -> tuple[str, int] | None:
        """Return the function an address is in, and how far into it."""
        return next(filter(None, (table.at(address) for table in self._tables)), None)


class _Segment(NamedTuple):
    offset: int
    address: int
    size: int


class _Table:
    def __init__(self, symbols: npt.NDArray[Any], names: bytes) -> None:
        functions = symbols[
            np.isin(symbols["info"] & 15, _FUNCTION_TYPES) & (symbols["section"] != 0)
        ]
        self._symbols = functions[np.argsort(functions["value"], kind="stable")]
        self._values = self._symbols["value"].astype(np.uint64)
        self._names = names

    # A function written in assembly may have no size: it goes on to the next.
    def at(self, address: int) -> tuple[str, int] | None:
        place = int(np.searchsorted(self._values, np.uint64(address), side="right")) - 1
        if place < 0:
            return None
        symbol = self._symbols[place]
        into = address - int(symbol["value"])
        if symbol["size"] and into >= symbol["size"]:
            return None
        start = int(symbol["name"])
        name = self._names[start : start + NAME_BYTES_MAX].partition(b"\0")[0]
        return name.decode("utf-8", "surrogateescape"), into


def read_functions(file: BinaryIO) -> Functions | None:
    """Return what a file names, None when it is no ELF file that makes sense."""
    try:
        elf = opened(file)
        tables = [*_tables(elf), *_tables(_debugdata(elf))]
        return Functions(_segments(elf), tables)
    except Exception:  # noqa: BLE001 - hostile files: pyelftools raises what struct and dicts do
        return None


def opened(file: BinaryIO) -> ELFFile:
    """Return an ELF file whose parts can be gone through. Raises what pyelftools does."""
    elf = ELFFile(file)
    if elf.num_sections() > PARTS_MAX or elf.num_segments() > PARTS_MAX:
        raise ValueError("more parts than any program has")
    return elf


def _segments(elf: Any) -> list[_Segment]:
    return [
        _Segment(int(one["p_offset"]), int(one["p_vaddr"]), int(one["p_filesz"]))
        for one in elf.iter_segments("PT_LOAD")
    ]


def _tables(elf: Any) -> Iterator[_Table]:
    for name in (".symtab", ".dynsym") if elf is not None else ():
        section = elf.get_section_by_name(name)
        if section is None or section["sh_type"] == "SHT_NOBITS":
            continue
        names = elf.get_section(section["sh_link"])
        if max(section["sh_size"], names["sh_size"]) > TABLE_BYTES_MAX:
            continue
        order = "<" if elf.little_endian else ">"
        dtype = np.dtype([(field, order + kind) for field, kind in _SYMBOL[elf.elfclass]])
        data = section.data()
        symbols = np.frombuffer(data, dtype, len(data) // dtype.itemsize)
        yield _Table(symbols, names.data())


# Fedora's packages carry an xz-compressed ELF file with the symbols of what is not exported.
def _debugdata(elf: Any) -> Any:
    section = elf.get_section_by_name(".gnu_debugdata")
    if section is None or section["sh_size"] > TABLE_BYTES_MAX:
        return None
    unpacker = lzma.LZMADecompressor(memlimit=PACKED_BYTES_MAX)
    return opened(io.BytesIO(unpacker.decompress(section.data(), PACKED_BYTES_MAX)))
