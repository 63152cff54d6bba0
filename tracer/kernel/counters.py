# SPDX-License-Identifier: Apache-2.0
"""The kernel side's own totals: mapped counters, and what the kernel says of each program."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracer.kernel.cpu_slots import CpuSlots

if TYPE_CHECKING:
    from io import FileIO

__all__ = ("Counters",)

_SLOT_BYTES = 128  # struct counters
# In the order of the struct, whose two tallies of `emitted` are added up.
_NAMES = (
    "emitted",
    "emitted",
    "ring_full",
    "conn_map_full",
    "unseen",
    "second_children",
    "unknown_sockets",
    "gaps",
    "taken_over",
    "resets_amended",
    "resets_lost",
    "strays_lost",
)
_FIGURES = {name.encode(): name for name in ("run_time_ns", "run_cnt", "recursion_misses")}
INFO_MAX_BYTES = 4096  # some 300 are there
_CLOSES = ("emitted", "ring_full", "conn_map_full", "unseen")


class Counters:
    """One slot per CPU, read without a system call; programs by /proc/self/fdinfo."""

    def __init__(self, fd: int, slots: int, programs: dict[str, int]) -> None:
        """Map `slots` slots of the mmapable array `fd`; `programs` are descriptors by name."""
        self._slots = CpuSlots(fd, slots, _SLOT_BYTES)
        self._seen = b""
        # Kept open: another user's process may not open them, and opening costs most.
        self._programs = {
            name: Path(f"/proc/self/fdinfo/{fd}").open("rb", buffering=0)  # noqa: SIM115
            for name, fd in programs.items()
        }

    def read(self) -> dict[str, Any]:
        """Return the totals by name, `missed` events, and each program's own figures.

        A program that is interrupted by its own event is skipped by the kernel, which counts
        a recursion miss. What the first copy missed and the twin took over is not missed.
        """
        self._seen = self._slots.content()
        counts: dict[str, Any] = dict.fromkeys(_NAMES, 0)
        for name, total in zip(_NAMES, self._slots.totals(len(_NAMES)), strict=True):
            counts[name] += total
        counts["closes"] = sum(counts[name] for name in _CLOSES)
        programs = {name: program_figures(info) for name, info in self._programs.items()}
        interrupted = programs["set_state"].get("recursion_misses", 0)
        counts["interrupted"] = interrupted
        counts["missed"] = max(0, interrupted - counts["taken_over"])
        counts["programs"] = programs
        return counts

    def moved(self) -> bool:
        """Say whether a connection was closed, or a close lost, since read(); a matter of 1 µs."""
        return self._slots.content() != self._seen

    def close(self) -> None:
        """Unmap."""
        self._slots.close()
        for info in self._programs.values():
            info.close()


def program_figures(info: FileIO) -> dict[str, int]:
    """Return run_time_ns, run_cnt and recursion_misses as far as this kernel gives them.

    `info` is /proc/self/fdinfo/FD of a program. The first two only grow while the sysctl
    kernel.bpf_stats_enabled is 1. Misses: Linux commit 9ed9e9ba2337 ("bpf: Count the number of
    times recursion was prevented") (in v5.12).
    """
    lines = os.pread(info.fileno(), INFO_MAX_BYTES, 0).split(b"\n")
    fields = (line.partition(b":\t") for line in lines)
    return {_FIGURES[key]: int(value) for key, _, value in fields if key in _FIGURES}
