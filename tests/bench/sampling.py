# SPDX-License-Identifier: Apache-2.0
"""Whose the processors are while a tracer runs, by samples: a steady measure on a noisy host.

At full load every sample that is a tracer's is one the load does not get: one less their
share of the busy samples is what will be kept.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

HERTZ: Final = 1999  # no divisor of any timer's rate
STOP_SECONDS: Final = 30.0
# Frames that only a BPF program has below it: the trampoline of a tracepoint is part of the cost.
IN_BPF: Final = re.compile(r"^(bpf_prog_|bpf_trace_run|__bpf_trace_|trace_call_bpf|perf_trace_)")
IDLE: Final = ("pv_native_safe_halt", "default_idle", "intel_idle", "acpi_idle", "cpuidle_enter")


@dataclass(slots=True)
class Shares:
    """Samples by whose they are."""

    in_bpf: int = 0
    resident: int = 0
    others: int = 0
    idle: int = 0

    @property
    def busy(self) -> int:
        """All but the idle ones."""
        return self.in_bpf + self.resident + self.others

    @property
    def predicted_kept(self) -> float | None:
        """The share of busy samples that is not the tracer's; None without samples."""
        return self.others / self.busy if self.busy else None


@contextmanager
def samples(file: Path) -> Iterator[None]:
    """Sample all processors meanwhile."""
    options = ("-a", "-g", "-e", "cpu-clock", "-F", str(HERTZ), "-o", str(file))
    process = subprocess.Popen(
        ["perf", "record", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(STOP_SECONDS)


def available() -> bool:
    """Whether there is a perf to ask."""
    return shutil.which("perf") is not None


def shares(file: Path, pids: Collection[int]) -> Shares:
    """Return whose the samples in a perf.data file were; `pids` are the tracer's."""
    command = ["perf", "script", "-i", str(file), "-F", "pid,ip,sym"]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    return count(done.stdout.split("\n\n"), pids)


def count(stacks: Iterable[str], pids: Collection[int]) -> Shares:
    """Count samples as `perf script -F pid,ip,sym` writes them, one stack each."""
    found = Shares()
    for stack in stacks:
        lines = stack.strip().splitlines()
        if not lines:
            continue
        symbols = [words[1] for words in map(str.split, lines[1:]) if len(words) > 1]
        if any(map(IN_BPF.match, symbols)):
            found.in_bpf += 1
        elif int(lines[0]) in pids:
            found.resident += 1
        elif any(symbol.startswith(IDLE) for symbol in symbols):
            found.idle += 1
        else:
            found.others += 1
    return found
