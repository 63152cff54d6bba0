# SPDX-License-Identifier: Apache-2.0
"""The one loop: batches in, from the kernel or from a recording; lines, counts and a recording out.

Live and replay differ in who yields the batches: `live_batches` keeps the timetable
of a running kernel, a RecordingSource just reads on. Everything after is the same.
"""

from __future__ import annotations

import json
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import numpy as np

from tracer.aggregator import Aggregator
from tracer.amend import Amender
from tracer.batch import Batch, BatchKind
from tracer.classify import classify
from tracer.close import closes_from
from tracer.errors import WireError
from tracer.filters import Filter
from tracer.wire import decode_closes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType

    from tracer.aggregator import Snapshot
    from tracer.close import Close
    from tracer.recording import RecordingWriter
    from tracer.tcp import HostFacts
    from tracer.wire import Records

TICK_S: Final = 0.050
TICK_MIN_S: Final = 0.002
COUNTERS_EVERY_NS: Final = 1_000_000_000
CLOCK_EVERY_NS: Final = 10_000_000_000  # the wall clock may be stepped while we run
GRACE_S: Final = 0.030  # what closed before the end is in the ring by then
NAMES_MAX: Final = 4096


class Source(Protocol):
    """What a running kernel offers; no call blocks."""

    @property
    def ring_bytes(self) -> int:
        """Return how much the ring holds; beyond it closes are lost."""

    def drain(self) -> Batch | None:
        """Return all closes that have arrived, None when none did."""

    def counters(self) -> Batch:
        """Return the kernel's totals since attach."""

    def clock(self) -> Batch:
        """Return how far the wall clock is from CLOCK_MONOTONIC."""

    def cgroup_names(self, ids: Iterable[int]) -> Batch:
        """Return the paths of these cgroups."""


class View(Protocol):
    """Where closes are shown."""

    def closes(self, closes: list[Close]) -> None:
        """Show these, and push them out."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When to stop by itself: after so many shown closes, or so many seconds after attach."""

    count: int | None = None
    duration_s: float | None = None


class Stop:
    """SIGINT and SIGTERM ask for an orderly end; a second SIGINT does not ask again."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Self:
        """Take over the signals."""
        self._before = {
            number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        """Give them back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True


class Names:
    """Paths of cgroups by id; the oldest makes room when NAMES_MAX are known."""

    def __init__(self) -> None:
        self.paths: dict[int, str | None] = {}

    def missing(self, ids: Iterable[int]) -> list[int]:
        """Return those never asked for; 0 is no cgroup."""
        return [number for number in ids if number and number not in self.paths]

    def learn(self, paths: dict[str, str | None]) -> None:
        """Take the answer of the source; an id without path is remembered as such."""
        for number, path in paths.items():
            self.paths[int(number)] = path
        while len(self.paths) > NAMES_MAX:
            del self.paths[next(iter(self.paths))]


class Session:
    """Decode, amend, classify, filter, count and show every batch it is fed.

    Without a view nothing is shown and no Python object is made per close.
    `ask_names` answers which paths cgroup ids have; a recording brings the answers along.
    """

    def __init__(
        self,
        host: HostFacts,
        *,
        view: View | None = None,
        chosen: Filter | None = None,
        limits: Limits | None = None,
        recorder: RecordingWriter | None = None,
        ask_names: Callable[[Iterable[int]], Batch] | None = None,
    ) -> None:
        self._host = host
        self._view = view
        self._filter = chosen or Filter()
        self._count = (limits or Limits()).count
        self._recorder = recorder
        self._ask_names = ask_names
        self._amender = Amender()
        self._names = Names()
        self._clock_ns = 0
        self._learners = {
            BatchKind.COUNTERS: self._learn_counters,
            BatchKind.NAMES: self._learn_names,
            BatchKind.CLOCK: self._learn_clock,
        }
        self.totals = Aggregator()

    @property
    def done(self) -> bool:
        """Whether as many closes as wanted were shown."""
        return self._count is not None and self.totals.shown >= self._count

    def feed(self, batch: Batch) -> None:
        """Take one batch: record it as it is, then act on it."""
        if batch.kind is not BatchKind.CLOSES:
            self._record(batch)
            self._learn(batch)
            return
        records = self._decode(batch)
        if self._recorder is not None:
            self._resolve(records)
        self._record(batch)
        self._judge(self._amender.feed(records, batch.mono_ns))

    def finish(self) -> Snapshot:
        """Let go of what was held back; return what the run came to."""
        self._judge(self._amender.flush())
        return self.totals.snapshot()

    def _record(self, batch: Batch) -> None:
        if self._recorder is not None:
            self._recorder.write(batch)

    # A batch that cannot be decoded is counted and skipped: an error belongs to one batch.
    def _learn(self, batch: Batch) -> None:
        try:
            facts = json.loads(batch.data)
            self._learners[batch.kind](facts)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self.totals.undecodable += 1

    def _learn_counters(self, facts: dict[str, Any]) -> None:
        self.totals.add_counters(facts)

    def _learn_names(self, facts: dict[str, Any]) -> None:
        self._names.learn(facts["cgroups"])

    def _learn_clock(self, facts: dict[str, Any]) -> None:
        self._clock_ns = int(facts["realtime_minus_monotonic_ns"])

    def _decode(self, batch: Batch) -> Records:
        try:
            return decode_closes(batch.data)
        except WireError:
            self.totals.undecodable += 1
            return decode_closes(b"")

    def _judge(self, closes: Records) -> None:
        if not len(closes):
            return
        self.totals.records += len(closes)
        verdicts = classify(closes, self._host)
        if self._filter.active:
            chosen = self._filter.mask(closes, verdicts)
            closes, verdicts = closes[chosen], verdicts[chosen]
        if self._count is not None:
            left = self._count - self.totals.shown
            closes, verdicts = closes[:left], verdicts[:left]
        self.totals.add(verdicts)
        if self._view is not None and len(closes):
            self._show(self._view, closes, verdicts)

    def _show(self, view: View, closes: Records, verdicts: Records) -> None:
        self._resolve(closes)
        view.closes(closes_from(closes, verdicts, self._host, self._names.paths, self._clock_ns))

    # Names go into the recording before the closes that need them, as a replay reads on only.
    def _resolve(self, records: Records) -> None:
        if self._ask_names is None:
            return
        missing = self._names.missing(np.unique(records["cgroup_id"]).tolist())
        if missing:
            self.feed(self._ask_names(missing))


def live_batches(source: Source, stop: Stop, limits: Limits) -> Iterator[Batch]:
    """Yield a kernel's batches on time until asked to stop, then what is left."""
    yield source.clock()
    started_ns = time.monotonic_ns()
    tick_s, counters_ns, clock_ns = TICK_S, started_ns, started_ns
    while not stop.asked and not _over(limits, started_ns):
        time.sleep(tick_s)
        batch, now_ns = source.drain(), time.monotonic_ns()
        tick_s = _next_tick(tick_s, batch, source.ring_bytes)
        yield batch or Batch(BatchKind.CLOSES, now_ns, b"")
        if now_ns - counters_ns >= COUNTERS_EVERY_NS:
            counters_ns = now_ns
            yield source.counters()
        if now_ns - clock_ns >= CLOCK_EVERY_NS:
            clock_ns = now_ns
            yield source.clock()


def last_batches(source: Source) -> Iterator[Batch]:
    """Yield what was under way when the end came, and the totals read just before it.

    A record counted in those totals is in the ring by then, so that none can be
    missing because it was late.
    """
    time.sleep(GRACE_S)
    totals = source.counters()
    if (batch := source.drain()) is not None:
        yield batch
    yield totals


def drain_rest(source: Source, session: Session) -> None:
    """Feed the session what the kernel still holds."""
    for batch in last_batches(source):
        session.feed(batch)


def run(batches: Iterable[Batch], session: Session, stop: Stop) -> None:
    """Feed the session until the batches end, it has shown enough, or somebody asks to stop."""
    for batch in batches:
        session.feed(batch)
        if session.done or stop.asked:
            break


# Come sooner when a quarter of the ring filled within one tick, later again when it does not.
def _next_tick(tick_s: float, batch: Batch | None, ring_bytes: int) -> float:
    arrived = len(batch.data) if batch is not None else 0
    factor = 0.5 if arrived * 4 > ring_bytes else 2.0
    return min(TICK_S, max(TICK_MIN_S, tick_s * factor))


def _over(limits: Limits, started_ns: int) -> bool:
    if limits.duration_s is None:
        return False
    return time.monotonic_ns() - started_ns >= limits.duration_s * 1e9
