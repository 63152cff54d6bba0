# SPDX-License-Identifier: Apache-2.0
"""The running kernel as a source of batches: bytes only, nothing is decoded here."""

from __future__ import annotations

import json
import os
import platform
import select
import socket
import struct
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from tracer.batch import Batch, BatchKind
from tracer.kernel import hooks
from tracer.kernel.launch import Loader, check_mounted
from tracer.tcp import HostFacts, TimeWaitChange

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from tracer.kernel.counters import Counters
    from tracer.kernel.cpu_slots import CpuSlots
    from tracer.kernel.ring import Ring

__all__ = ("KernelSource", "Sizes", "hz", "realtime_minus_monotonic_ns")

RECORD_BYTES: Final = 376  # struct conn_record; tests/unit/test_wire.py holds it to records.h
STRIDE: Final = 8 + RECORD_BYTES
SWEEP_SLOTS: Final = 64
STRAYS_MAX: Final = 512  # what is told apart; the rest is counted in one number
TIME_WAITS_BYTES: Final = 128  # struct time_waits, which begins with totals by enum tw_change
ORIGINS: Final = {"origins_max": 1 << 15, "user_stacks_max": 1 << 13}
"""How many live sockets have a stack, and how many stacks there are: 10 MB of kernel memory."""
RINGS_MAX: Final = 4  # as many as teardown.bpf.c declares
CLOSES_PER_SECOND: Final = 34_000  # the most that one CPU was seen to make, both ends of each


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much kernel memory may be used: 16 MiB as it stands.

    `ring_bytes`: of all rings together, a power of two of pages; 8 MiB hold 21,844
    closes, 320 ms at the 68,000 closes a second two cores can make. `slots`: a power
    of two, half a kilobyte each: two places for connections, without any allocation.
    `conn_max` bounds those followed beyond that: 16 bytes each, and a quarter of a
    kilobyte more while one lives.
    """

    ring_bytes: int = 8 << 20
    slots: int = 1 << 13
    conn_max: int = 1 << 18


class KernelSource:
    """Programs attached to this host; detached on close() or when this process ends."""

    def __init__(self, loader: Loader) -> None:
        """Take over what the loader attaches. Raises HostError when it cannot."""
        # numpy and ctypes are imported while the loader works.
        from tracer.kernel.bpf import test_run  # noqa: PLC0415
        from tracer.kernel.cgroups import CgroupPaths  # noqa: PLC0415
        from tracer.kernel.counters import Counters  # noqa: PLC0415
        from tracer.kernel.ring import Ring  # noqa: PLC0415
        from tracer.kernel.strays import Strays  # noqa: PLC0415

        self._test_run = test_run
        loaded = self.loaded = loader.wait()
        self.manifest: dict[str, Any] = loaded.manifest
        self._stack = ExitStack()
        self._fds = loaded.fds
        self._stack.callback(self._let_go, "")
        self._rings: list[Ring] = []
        for number in range(self.manifest["rings"]):
            fd = loaded.fds[f"ring:{number}"]
            self._rings.append(Ring(fd, self.manifest["ring_bytes"], STRIDE))
            self._stack.callback(self._rings[-1].close)
        hooked = (name for hook in self.manifest["hooks"] for name in hook["functions"])
        names = (*self.manifest["programs"], *hooked)
        programs = {name: loaded.fds[f"prog:{name}"] for name in names}
        slots = self.manifest["cpu_slots"]
        self._counters: Counters = Counters(loaded.fds["counts"], slots, programs)
        self._stack.callback(self._counters.close)
        self._strays = Strays(loaded.fds["strays"])
        self._time_waits = self._following_time_waits(slots)
        self._cgroups = CgroupPaths()
        self._stack.callback(self._cgroups.close)
        reasons = self.manifest["reset_reasons"]
        self.host = HostFacts(
            hz=hz(),
            rst_reasons={int(number): name for number, name in reasons.items()},
            page_size=os.sysconf("SC_PAGESIZE"),
            kernel_release=platform.release(),
            machine=platform.machine(),
        )

    @staticmethod
    def load(
        sizes: Sizes | None = None,
        *,
        census: dict[str, Any] | None = None,
        origins: bool = False,
    ) -> Loader:
        """Start the loader child and return at once; KernelSource(loader) waits for it.

        `census`: CensusSource.options(), to have its programs loaded by the same child;
        CensusSource(source.loaded) takes them over. `origins`: the same for OriginSource.
        """
        check_mounted()
        chosen, cpus = sizes or Sizes(), possible_cpus()
        rings = 1 if cpus < 2 else 2 if cpus < 4 else RINGS_MAX
        return Loader(
            {
                "sets": [
                    "teardown",
                    *(["census"] if census else []),
                    *(["origins"] if origins else []),
                ],
                **(census or {}),
                **(ORIGINS if origins else {}),
                "rings": rings,
                "ring_pages": max(1, chosen.ring_bytes // rings // os.sysconf("SC_PAGESIZE")),
                "slots": chosen.slots,
                "sweep_slots": SWEEP_SLOTS,
                "conn_max": chosen.conn_max,
                "cpu_slots": cpus,
                "strays_max": STRAYS_MAX,
            }
        )

    @property
    def ring_bytes(self) -> int:
        """Size of one ring's data area."""
        return int(self.manifest["ring_bytes"])

    @property
    def room_s(self) -> float:
        """Seconds in which CPUs that do nothing but close connections fill an empty ring."""
        cpus_per_ring = -(-(os.cpu_count() or 1) // len(self._rings))
        return self.ring_bytes / STRIDE / (CLOSES_PER_SECOND * cpus_per_ring)

    @property
    def waiting_bytes(self) -> int:
        """How much waits in the fullest ring."""
        return max(ring.waiting_bytes for ring in self._rings)

    def wait(self, limit_s: float, *also: int) -> None:
        """Block until a ring is not empty, one of these fds is readable, or the time is over."""
        poll = select.poll()
        rings = (self._fds[f"ring:{number}"] for number in range(len(self._rings)))
        for fd in (*rings, *also):
            poll.register(fd, select.POLLIN)
        poll.poll(limit_s * 1000)

    def drain(self) -> Batch | None:
        """Return all closes that have arrived as a copy, None when none did; never blocks.

        In order of time within each CPU's ring only.
        """
        data = b"".join([ring.drain() for ring in self._rings])
        return Batch(BatchKind.CLOSES, time.monotonic_ns(), data) if data else None

    def take(self) -> Generator[Batch]:
        """Yield what had arrived at one look where it lies, a batch per ring.

        Each holds until the next is asked for; what was not yielded stays in its ring.
        Copying costs as much as judging: it brings every byte through the cache once more.
        """
        taken = [(ring, ring.take()) for ring in self._rings]
        now_ns = time.monotonic_ns()
        for ring, data in taken:
            try:
                if data:
                    yield Batch(BatchKind.CLOSES, now_ns, data)
            finally:
                ring.release()

    def sweep(self) -> None:
        """Look for connections whose socket went away unseen; it takes two calls to be sure.

        A few microseconds per hundred slots. What is found shows in counters() as `unseen`.
        """
        for first in range(0, 2 * self.manifest["slots"], SWEEP_SLOTS):
            self._test_run(self._fds["prog:sweep"], first)

    def needs(self) -> None:
        """Do once everything that may take privilege. Raises OSError where the kernel refuses."""
        self.sweep()
        self._counters.read()

    def stop_following(self) -> None:
        """Let no new event in. What is under way still arrives: sockets about to be destroyed."""
        self._let_go("link:set_state")

    def counters(self) -> Batch:
        """Return the kernel side's totals since attach; {"programs": …} holds each one's misses.

        `time_waits`, by number of enum tw_change, only where hooks are in force that tell.
        """
        totals = {**self._counters.read(), "strays": self._strays.read()}
        if self._time_waits is not None:
            totals["time_waits"] = self._time_waits.totals(len(TimeWaitChange))
        return _json_batch(BatchKind.COUNTERS, totals)

    def moved(self) -> bool:
        """Say whether counters() would tell of other closes than before.

        What else it tells, of RSTs without a connection and of the programs, may have changed.
        """
        return self._counters.moved()

    def clock(self) -> Batch:
        """Return how far the wall clock is from CLOCK_MONOTONIC now."""
        return _json_batch(
            BatchKind.CLOCK, {"realtime_minus_monotonic_ns": realtime_minus_monotonic_ns()}
        )

    def cgroup_names(self, ids: Iterable[int]) -> Batch:
        """Return the paths of these cgroups; null for what is gone."""
        paths = {str(number): self._cgroups.path(number) for number in ids}
        return _json_batch(BatchKind.NAMES, {"cgroups": paths})

    def close(self) -> None:
        """Detach everything. Twice is once."""
        self._stack.close()

    def _following_time_waits(self, slots: int) -> CpuSlots | None:
        from tracer.kernel.cpu_slots import CpuSlots  # noqa: PLC0415

        if not hooks.in_force(self.manifest, hooks.TIME_WAIT):
            return None
        time_waits = CpuSlots(self._fds["time_waits"], slots, TIME_WAITS_BYTES)
        self._stack.callback(time_waits.close)
        return time_waits

    # Close the descriptors whose names begin like this.
    def _let_go(self, prefix: str) -> None:
        for name in [name for name in self._fds if name.startswith(prefix)]:
            os.close(self._fds.pop(name))

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Detach everything."""
        self.close()


def possible_cpus() -> int:
    """Return how many CPU numbers there can be: the highest possible one plus one."""
    text = Path("/sys/devices/system/cpu/possible").read_text()
    return int(text.strip().replace("-", ",").split(",")[-1]) + 1


def hz() -> int:
    """Return CONFIG_HZ: a receive timeout of 1 µs comes back as one whole jiffy.

    net/core/sock.c sock_set_timeout() rounds up to jiffies, sock_get_timeout() converts back.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 1))
        seconds, microseconds = struct.unpack(
            "ll", probe.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)
        )
    jiffy_us: int = seconds * 1_000_000 + microseconds
    return round(1_000_000 / jiffy_us)


def realtime_minus_monotonic_ns() -> int:
    """Return CLOCK_REALTIME - CLOCK_MONOTONIC, from the tightest of a few pairs of readings."""
    pairs = []
    for _ in range(5):
        before = time.monotonic_ns()
        real = time.time_ns()
        after = time.monotonic_ns()
        pairs.append((after - before, real - (before + after) // 2))
    return min(pairs)[1]


def _json_batch(kind: BatchKind, content: dict[str, Any]) -> Batch:
    return Batch(kind, time.monotonic_ns(), json.dumps(content).encode())
