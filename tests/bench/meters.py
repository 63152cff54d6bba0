# SPDX-License-Identifier: Apache-2.0
"""What a process costs: processor time, memory, and the time in its BPF programs."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

BPF_SYSCALL: Final = {"x86_64": 321, "aarch64": 280}
BPF_PROG_GET_FD_BY_ID: Final = 13
BPF_OBJ_GET_INFO_BY_FD: Final = 15
# Offsets in struct bpf_prog_info (include/uapi/linux/bpf.h).
INFO_BYTES: Final = 256
INFO_NAME: Final = slice(64, 80)
INFO_RUN_TIME_NS: Final = slice(192, 200)
INFO_RUN_CNT: Final = slice(200, 208)
INFO_RECURSION_MISSES: Final = slice(208, 216)

STATISTICS: Final = Path("/proc/sys/kernel/bpf_stats_enabled")
TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Processor time of one process since its start, its ended threads included."""

    user_seconds: float  # by clock ticks: 10 ms steps, sampled
    system_seconds: float
    total_seconds: float  # by the scheduler: exact

    def __sub__(self, earlier: CpuTime) -> CpuTime:
        """Return what was spent since."""
        return CpuTime(
            self.user_seconds - earlier.user_seconds,
            self.system_seconds - earlier.system_seconds,
            self.total_seconds - earlier.total_seconds,
        )


def family(pid: int) -> tuple[int, ...]:
    """Return a process and all that descend from it; it costs what they cost together."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    children = [int(child) for one in threads for child in (one / "children").read_text().split()]
    return (pid, *(one for child in children for one in family(child)))


def cpu_time(pids: Collection[int]) -> CpuTime:
    """Read /proc/PID/stat and the schedstat of the threads of each, and add up."""
    each = [_cpu_time(pid) for pid in pids]
    return CpuTime(
        sum(one.user_seconds for one in each),
        sum(one.system_seconds for one in each),
        sum(one.total_seconds for one in each),
    )


def _cpu_time(pid: int) -> CpuTime:
    # Fields are counted after the command's closing bracket: it may hold spaces.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ran_ns = sum(
        int((task / "schedstat").read_text().split()[0])
        for task in Path(f"/proc/{pid}/task").iterdir()
    )
    user, system = (int(ticks) / TICKS_PER_SECOND for ticks in fields[11:13])
    return CpuTime(user, system, ran_ns / 1e9)


def all_seconds(pid: int) -> float:
    """Return the processor time of a process, of threads that ended and of children waited for.

    To 10 ms: what has ended is told in clock ticks alone.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS_PER_SECOND


def sleeps(pid: int) -> int:
    """Return how often the threads of a process that live now went to sleep of their own will."""
    texts = [(task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    found = re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", "".join(texts), re.MULTILINE)
    return sum(map(int, found))


def memory_kb(pids: Collection[int]) -> dict[str, int]:
    """Return rss, pss, anonymous and its share by pss of smaps_rollup, and the highest rss so far.

    Of several processes the sums: all but pss then count what they share more than once.
    """
    each = [_memory_kb(pid) for pid in pids]
    sums = {name: sum(one[name] for one in each) for name in each[0]}
    return {**sums, "bpf_maps": map_memory_kb(pids)}


def _memory_kb(pid: int) -> dict[str, int]:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    status = Path(f"/proc/{pid}/status").read_text()
    return {
        name: int(re.findall(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)[0])
        for name, field, text in (
            ("rss", "Rss", rollup),
            ("pss", "Pss", rollup),
            ("anonymous", "Anonymous", rollup),
            ("pss_anonymous", "Pss_Anon", rollup),
            ("highest_rss", "VmHWM", status),
        )
    }


# The text of every fdinfo of these processes; a process may end while we look, an fd be closed.
def _fdinfos(pids: Collection[int]) -> Iterator[str]:
    for folder in (Path(f"/proc/{pid}/fdinfo") for pid in pids):
        with contextlib.suppress(FileNotFoundError):
            for path in folder.iterdir():
                with contextlib.suppress(OSError):
                    yield path.read_text()


def map_memory_kb(pids: Collection[int]) -> int:
    """Return what the kernel holds for the maps whose fds these processes have, each once."""
    bytes_by_map = {
        int(info.split("map_id:")[1].split()[0]): int(info.split("memlock:")[1].split()[0])
        for info in _fdinfos(pids)
        if "map_id:" in info and "memlock:" in info
    }
    return sum(bytes_by_map.values()) // 1024


def program_ids(pids: Collection[int]) -> set[int]:
    """Return the ids of the programs these processes have an fd or a link of."""
    return {
        int(number) for info in _fdinfos(pids) for number in re.findall(r"prog_id:\s+(\d+)", info)
    }


@dataclass(frozen=True, slots=True)
class ProgramRuns:
    """One BPF program's statistics; run_time and run_cnt count only while they are enabled."""

    name: str
    run_time_ns: int
    run_cnt: int
    recursion_misses: int

    def __sub__(self, earlier: ProgramRuns) -> ProgramRuns:
        """Return what was added since."""
        return ProgramRuns(
            self.name,
            self.run_time_ns - earlier.run_time_ns,
            self.run_cnt - earlier.run_cnt,
            self.recursion_misses - earlier.recursion_misses,
        )


def program_runs(program_id: int) -> ProgramRuns:
    """Ask the kernel for a program's statistics; raises OSError (root is needed)."""
    attr = ctypes.create_string_buffer(program_id.to_bytes(4, "little"), 128)
    fd = _bpf(BPF_PROG_GET_FD_BY_ID, attr)
    info = ctypes.create_string_buffer(INFO_BYTES)
    request = b"".join(
        (
            fd.to_bytes(4, "little"),
            INFO_BYTES.to_bytes(4, "little"),
            ctypes.addressof(info).to_bytes(8, "little"),
        )
    )
    try:
        _bpf(BPF_OBJ_GET_INFO_BY_FD, ctypes.create_string_buffer(request, 128))
    finally:
        os.close(fd)
    run_time_ns, run_cnt, misses = (
        int.from_bytes(info.raw[place], "little")
        for place in (INFO_RUN_TIME_NS, INFO_RUN_CNT, INFO_RECURSION_MISSES)
    )
    name = info.raw[INFO_NAME].split(b"\0")[0].decode()
    return ProgramRuns(name, run_time_ns, run_cnt, misses)


def _bpf(command: int, attr: ctypes.Array[ctypes.c_char]) -> int:
    result = int(_libc.syscall(BPF_SYSCALL[platform.machine()], command, attr, len(attr)))
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"bpf({command}): {os.strerror(errno)}")
    return result


@contextmanager
def bpf_statistics() -> Iterator[None]:
    """Count runs and time of all BPF programs meanwhile (about 20 ns a run); puts it back."""
    before = STATISTICS.read_text()
    STATISTICS.write_text("1")
    try:
        yield
    finally:
        STATISTICS.write_text(before)
