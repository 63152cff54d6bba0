# SPDX-License-Identifier: Apache-2.0
"""Where a function of an ELF file keeps its return address, by .eh_frame.

A system call's wrapper in libc mostly has no frame pointer: the kernel then takes its caller's for
its own, and passes the caller by. Beside the stack pointer of that moment .eh_frame says where the
address of the caller lies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO, Final

from elftools.dwarf.callframe import FDE

from tracer.kernel.elf_symbols import opened

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("CallFrames", "read_call_frames")

EH_FRAME_BYTES_MAX: Final = 1 << 19
"""Four times libc's, some seconds of reading: a larger one is no libc's."""
FUNCTION_BYTES_MAX: Final = 1 << 12
"""Of what is told of one function: every row repeats all registers before it."""
_RSP: Final = {"EM_X86_64": 7}
"""The stack pointer's number in DWARF."""
_WORD_BYTES: Final = 8


class CallFrames:
    """The frames of one file's functions."""

    def __init__(self, functions: Sequence[Any], stack_pointer: int) -> None:
        self._functions = functions
        self._stack_pointer = stack_pointer

    def return_offset(self, address: int) -> int | None:
        """Return how far above the stack pointer the return address lies; None: not known.

        None as well for a function that has a frame pointer.
        """
        for one in self._functions:
            start = int(one["initial_location"])
            if start <= address < start + int(one["address_range"]):
                return self._offset(one, address)
        return None

    def _offset(self, function: Any, address: int) -> int | None:
        if max(int(one["length"]) for one in (function, function.cie)) > FUNCTION_BYTES_MAX:
            return None
        rows = [row for row in function.get_decoded().table if row["pc"] <= address]
        rule = rows[-1]["cfa"] if rows else None
        if rule is None or rule.reg != self._stack_pointer:
            return None
        return int(rule.offset) - _WORD_BYTES


def read_call_frames(file: BinaryIO) -> CallFrames | None:
    """Return the frames of a file, None when it tells none that make sense."""
    try:
        elf = opened(file)
        section, pointer = elf.get_section_by_name(".eh_frame"), _RSP.get(elf["e_machine"])
        if section is None or pointer is None or section["sh_size"] > EH_FRAME_BYTES_MAX:
            return None
        entries = elf.get_dwarf_info(relocate_dwarf_sections=False).EH_CFI_entries()
        return CallFrames([one for one in entries if isinstance(one, FDE)], pointer)
    except Exception:  # noqa: BLE001 - hostile files: pyelftools raises what struct and dicts do
        return None
