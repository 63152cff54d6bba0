# SPDX-License-Identifier: Apache-2.0
"""What /proc says of the processes that hold sockets worth a look."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tracer.census import ProcessFacts

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("PROCESSES_MAX", "read_processes")

PROCESSES_MAX: Final = 4096
_TEXT_MAX: Final = 4096
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def read_processes(started_ns: Mapping[int, int]) -> dict[int, ProcessFacts]:
    """Return the facts of these processes, by number with the time they started.

    One that is gone by now is left out, and so is one that is another: the number was taken
    again, or this /proc is of another PID namespace, as a container's is.
    """
    found = {}
    for tgid, start_ns in started_ns.items():
        folder = Path(f"/proc/{tgid}")
        with suppress(OSError):
            if start_ticks(_read(folder / "stat")) == start_ns * _TICKS_PER_S // 1_000_000_000:
                found[tgid] = _facts(folder)
    return found


def start_ticks(stat: str) -> int:
    """Return the 22nd field of /proc/PID/stat: "1 (comm) S …", where comm may hold anything."""
    return int(stat[stat.rindex(")") + 1 :].split()[19])


def _facts(folder: Path) -> ProcessFacts:
    return ProcessFacts(
        comm=_read(folder / "comm").rstrip("\n"),
        exe=_exe(folder),
        uid=_uid(_read(folder / "status")),
        nofile_soft=_nofile(_read(folder / "limits")),
        open_fds=_open_fds(folder / "fd"),
        cgroup=_cgroup(_read(folder / "cgroup")),
    )


# Names are anybody's bytes.
def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "backslashreplace")


def _exe(folder: Path) -> str | None:
    with suppress(OSError):
        target = os.readlink(os.fsencode(folder / "exe"))  # noqa: PTH115 - bytes
        return target.decode("utf-8", "backslashreplace")[:_TEXT_MAX]
    return None


# "Uid:\t1000\t1000\t1000\t1000": real, effective, saved, file system.
def _uid(status: str) -> int | None:
    for line in status.splitlines():
        if line.startswith("Uid:"):
            return int(line.split()[2])
    return None


# "Max open files            1024                 524288               files"
def _nofile(limits: str) -> int | None:
    for line in limits.splitlines():
        if line.startswith("Max open files"):
            soft = line.removeprefix("Max open files").split()[0]
            return int(soft) if soft.isdigit() else None
    return None


# Linux commit f1f1f2569901 ("proc: report open files as size in stat() for /proc/pid/fd")
# (in v6.2); before that they must be counted, and our own counting is one of ours.
def _open_fds(folder: Path) -> int | None:
    with suppress(OSError):
        is_ours = folder.parent.name == str(os.getpid())
        return folder.stat().st_size or len(os.listdir(folder)) - is_ours  # noqa: PTH208 - names
    return None


# "0::/system.slice/nginx.service"
def _cgroup(text: str) -> str | None:
    for line in text.splitlines():
        if line.startswith("0::"):
            return line[3:][:_TEXT_MAX]
    return None
