# SPDX-License-Identifier: Apache-2.0
"""The timetable of a running kernel: when to fetch closes, totals and clock, and when to end."""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, Self

from tracer.batch import Batch, BatchKind

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from types import FrameType

    from tracer.session import Limits

TICK_S: Final = 0.050
TICK_MIN_S: Final = 0.002
NEARLY_EMPTY: Final = 8
"""One part in so many is taken."""
SETTLED_NS: Final = 3_000_000_000  # by then every close counted was taken, and amended
GRACE_S: Final = 0.030  # what closed before the end is in the ring by then
BACKLOG_MAX_BYTES: Final = 64 << 20  # 170,000 closes that wait to be shown; then the ring fills


@dataclass(frozen=True, slots=True)
class Pace:
    """How often to come by: `tick_s` while little arrives, for closes; sooner when much does."""

    tick_s: float = TICK_S
    idle_tick_s: float = 0.0
    """While rings are nearly empty, if that is longer: each coming by wakes up a processor."""
    patience_ns: int = 0
    """How long closes may stay in a ring that is nearly empty: few at a time cost most."""
    counters_every_ns: int = 1_000_000_000
    still_ns: int = 0
    """How long totals may go unread, if that is longer, while nothing closes."""
    asleep_s: float = 0.0
    """How long to wait, while rings are empty, until the kernel tells of a close; 0: come by."""
    clock_every_ns: int = 5_000_000_000  # the wall clock may be stepped while we run; sweeps too


COUNTING: Final = Pace(tick_s=0.100, patience_ns=300_000_000)
"""Nobody waits for a line. Whoever has slept finds nothing of his own in the processor's caches:
a batch costs most of a millisecond before its first record."""


class Source(Protocol):
    """What a running kernel offers; no other call blocks."""

    @property
    def ring_bytes(self) -> int:
        """Return how much the ring holds; beyond it closes are lost."""

    @property
    def waiting_bytes(self) -> int:
        """Return how much waits in the fullest ring."""

    def wait(self, limit_s: float, *also: int) -> None:
        """Block until a ring is not empty, one of these fds is readable, or the time is over."""

    def drain(self) -> Batch | None:
        """Return all closes that have arrived, None when none did."""

    def take(self) -> Generator[Batch]:
        """Yield all closes that have arrived, without copying: each batch holds until the next."""

    def moved(self) -> bool:
        """Say whether connections were closed since counters()."""

    def sweep(self) -> None:
        """Look for closes the kernel never told of; two calls settle what there is."""

    def stop_following(self) -> None:
        """Let no new event in."""

    def counters(self) -> Batch:
        """Return the kernel's totals since attach."""

    def clock(self) -> Batch:
        """Return how far the wall clock is from CLOCK_MONOTONIC."""

    def cgroup_names(self, ids: Iterable[int]) -> Batch:
        """Return the paths of these cgroups."""


class Stop:
    """SIGINT, SIGTERM and SIGHUP ask for an orderly end; a second SIGINT does not ask again.

    SIGHUP: the terminal went away. Under nohup it stays ignored. Python goes on waiting after a
    handler has run: whoever waits long polls `signals`, too, which becomes readable with every
    signal that has a handler.
    """

    def __init__(self) -> None:
        self.asked = False
        self.signals = -1

    def __enter__(self) -> Self:
        """Take over the signals. Raises KeyboardInterrupt for one that was swallowed before."""
        if getattr(signal.getsignal(signal.SIGINT), "asked", False):
            raise KeyboardInterrupt
        self.signals, self._came = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._told_before = signal.set_wakeup_fd(self._came, warn_on_full_buffer=False)
        asking = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            asking.append(signal.SIGHUP)
        self._before = {number: signal.signal(number, self._ask) for number in asking}
        return self

    def __exit__(self, *_: object) -> None:
        """Give them back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._told_before)
        os.close(self.signals)
        os.close(self._came)

    def forget_signals(self) -> None:
        """Make `signals` unreadable until the next one."""
        with suppress(BlockingIOError):
            os.read(self.signals, 4096)

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True


class Live:
    """One run on a kernel.

    Where closes are shown, `keep` is set: `fetch` may then be called whenever there is
    time, and empties the ring into a backlog. Else they are judged where they lie.
    """

    def __init__(
        self, source: Source, limits: Limits, pace: Pace | None = None, *, keep: bool = True
    ) -> None:
        self.source = source
        self._pace = pace or Pace()
        self._limits = limits
        self._keep = keep
        self._backlog: deque[Batch] = deque()
        self._backlog_bytes = 0
        self._tick_s = self._pace.tick_s
        self._taken_ns = 0
        self._counters_ns = self._moved_ns = 0
        self._ended = False

    def fetch(self) -> None:
        """Move what has arrived from the ring to the backlog, as long as that has room."""
        if self._ended or self._backlog_bytes > BACKLOG_MAX_BYTES:
            return
        self._set_tick()
        batch = self.source.drain()
        if batch is not None:
            self._backlog.append(batch)
            self._backlog_bytes += len(batch.data)

    @property
    def behind_bytes(self) -> int:
        """Return how much has arrived and was not yielded, as far as the fullest ring tells."""
        return self._backlog_bytes + self.source.waiting_bytes

    def batches(self, stop: Stop) -> Generator[Batch]:
        """Yield everything on time until asked to stop or the time is over."""
        started_ns = time.monotonic_ns()
        yield self.source.clock()
        self._counters_ns = clock_ns = started_ns
        while not stop.asked and not self._over(started_ns):
            yield from self._closes_kept() if self._keep else self._closes_in_place(stop)
            now_ns = time.monotonic_ns()
            if self._counters_due(now_ns):
                self._counters_ns = now_ns
                yield self.source.counters()
            if now_ns - clock_ns >= self._pace.clock_every_ns:
                clock_ns = now_ns
                self.source.sweep()
                yield self.source.clock()

    def rest(self) -> Iterator[Batch]:
        """Yield what was under way when the end came, and the totals, which are final.

        Nothing new is followed from here on, so that totals and records agree exactly. The
        first sweep comes before: what closes between is not followed, and not lost.
        """
        self.source.sweep()
        self.source.stop_following()
        time.sleep(GRACE_S)
        self.source.sweep()
        totals = self.source.counters()
        self._backlog_bytes = 0
        self.fetch()
        self._ended = True
        while self._backlog:
            yield self._backlog.popleft()
        yield totals

    # An empty batch tells the time: what was held back is let go by it.
    def _closes_kept(self) -> Iterator[Batch]:
        if not self._backlog:
            time.sleep(self._tick_s)
            self.fetch()
        if not self._backlog:
            yield Batch(BatchKind.CLOSES, time.monotonic_ns(), b"")
            return
        batch = self._backlog.popleft()
        self._backlog_bytes -= len(batch.data)
        yield batch

    def _closes_in_place(self, stop: Stop) -> Iterator[Batch]:
        self._sleep(stop)
        now_ns = time.monotonic_ns()
        if self._set_tick() and now_ns - self._taken_ns < self._pace.patience_ns:
            return
        self._taken_ns = now_ns
        arrived = False
        # Also when nobody asks for more: what was judged must not come again, the rest must.
        with closing(self.source.take()) as batches:
            for batch in batches:
                arrived = True
                yield batch
        if not arrived:
            yield Batch(BatchKind.CLOSES, time.monotonic_ns(), b"")

    # The kernel tells of the first record in an empty ring alone: with one there, come by.
    def _sleep(self, stop: Stop) -> None:
        if self._pace.asleep_s and not self.source.waiting_bytes:
            self.source.wait(self._pace.asleep_s, stop.signals)
            stop.forget_signals()
        else:
            time.sleep(self._tick_s)

    # Says whether the rings are nearly empty.
    def _set_tick(self) -> bool:
        fullest, ring = self.source.waiting_bytes, self.source.ring_bytes
        nearly_empty = fullest * NEARLY_EMPTY < ring
        longest_s = max(self._pace.tick_s, self._pace.idle_tick_s if nearly_empty else 0)
        self._tick_s = next_tick_s(self._tick_s, fullest, ring, longest_s)
        return nearly_empty

    def _counters_due(self, now_ns: int) -> bool:
        waited_ns = now_ns - self._counters_ns
        if waited_ns < self._pace.counters_every_ns:
            return False
        if self._pace.still_ns and self.source.moved():
            self._moved_ns = now_ns
        return waited_ns >= self._pace.still_ns or now_ns - self._moved_ns < SETTLED_NS

    def _over(self, started_ns: int) -> bool:
        if self._limits.duration_s is None:
            return False
        return time.monotonic_ns() - started_ns >= self._limits.duration_s * 1e9


def next_tick_s(
    tick_s: float, waiting_bytes: int, ring_bytes: int, longest_s: float = TICK_S
) -> float:
    """Come sooner when half of the fullest ring filled within one tick, later again when not."""
    factor = 0.5 if waiting_bytes * 2 > ring_bytes else 2.0
    return min(longest_s, max(TICK_MIN_S, tick_s * factor))
