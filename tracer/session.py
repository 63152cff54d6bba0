# SPDX-License-Identifier: Apache-2.0
"""The one loop: batches in, from the kernel or from a recording; lines, counts and a recording out.

Live and replay differ in who yields the batches: session_live keeps the timetable of a
running kernel, a RecordingSource just reads on. Everything after is the same.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from tracer.aggregator import Aggregator
from tracer.amend import Amender
from tracer.batch import BatchKind
from tracer.classify import judge, verdicts_of
from tracer.close import closes_from
from tracer.columns import taken
from tracer.errors import WireError
from tracer.filters import Filter
from tracer.wire import decode_closes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tracer.aggregator import Snapshot
    from tracer.batch import Batch
    from tracer.classify_graceful import Reasons
    from tracer.close import Close
    from tracer.recording import RecordingWriter
    from tracer.session_live import Stop
    from tracer.tcp import HostFacts
    from tracer.verdict import Verdicts
    from tracer.wire import Records

# What nonsense in place of the expected JSON can raise.
BAD_CONTENT: Final = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)
NAMES_MAX: Final = 4096
SHOWN_AT_ONCE: Final = 64  # some milliseconds of work: the ring does not fill meanwhile


class View(Protocol):
    """Where closes are shown."""

    def closes(self, closes: list[Close]) -> None:
        """Show these, and push them out."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When to stop by itself: after so many shown closes, or so many seconds after attach."""

    count: int | None = None
    duration_s: float | None = None


class Names:
    """Paths of cgroups by id; the oldest makes room when NAMES_MAX are known."""

    def __init__(self) -> None:
        self.paths: dict[int, str | None] = {}

    def missing(self, ids: Iterable[int]) -> list[int]:
        """Return those never asked for; 0 is no cgroup."""
        return [number for number in ids if number and number not in self.paths]

    def learn(self, paths: dict[str, str | None]) -> None:
        """Take the answer of the source; an id without path is remembered as such."""
        self.paths.update((int(number), path and str(path)) for number, path in paths.items())
        while len(self.paths) > NAMES_MAX:
            del self.paths[next(iter(self.paths))]


class Session:
    """Decode, amend, classify, filter, count and show every batch it is fed.

    Without a view nothing is shown and no Python object is made per close.
    `ask_names` answers which paths cgroup ids have; a recording brings the answers along.
    `meanwhile` is called every few closes shown: a person's line takes a hundred times
    longer to make than a close takes to come. `warn` is told when closes were lost, as
    soon as that is known. `counted` is given all closes that were counted and the Reason
    of each, as arrays.
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
        meanwhile: Callable[[], object] | None = None,
        warn: Callable[[str], object] | None = None,
        counted: Callable[[Records, Reasons], object] | None = None,
    ) -> None:
        self._host = host
        self._view = view
        self._filter = chosen or Filter()
        self._count = (limits or Limits()).count
        self._recorder = recorder
        self._ask_names = ask_names
        self._meanwhile = meanwhile
        self._warn = warn
        self._counted = counted
        self._lost_told = 0
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
        if not batch.data and not self._amender.holding:
            return  # it only tells the time, and nobody waits for that
        records = self._decode(batch)
        if self._recorder is not None:
            self._resolve(records)
        self._record(batch)
        self._judge(self._amender.feed(records, batch.mono_ns))

    def only_count(self) -> None:
        """Show no more closes from here on."""
        self._view = None

    def finish(self) -> Snapshot:
        """Let go of what was held back; return what the run came to."""
        self._judge(self._amender.flush())
        return self.totals.snapshot()

    def _record(self, batch: Batch) -> None:
        if self._recorder is not None:
            self._recorder.write(batch)

    # A batch that cannot be decoded is counted and skipped: an error belongs to one batch.
    # A census says nothing of closes.
    def _learn(self, batch: Batch) -> None:
        if batch.kind is BatchKind.CENSUS:
            return
        try:
            facts = json.loads(bytes(batch.data))
            self._learners[batch.kind](facts)
        except BAD_CONTENT:
            self.totals.undecodable += 1

    def _learn_counters(self, facts: dict[str, Any]) -> None:
        self.totals.add_counters(facts)
        lost = {where: count for where, count in self.totals.lost().items() if count}
        if self._warn is not None and sum(lost.values()) > self._lost_told:
            self._lost_told = sum(lost.values())
            places = ", ".join(f"{where} {count:,}" for where, count in lost.items())
            self._warn(f"lost: {self._lost_told:,} closes so far ({places})")

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
        self.totals.resets_unmatched = self._amender.unmatched
        if not len(closes):
            return
        self.totals.records += len(closes)
        reasons = judge(closes, self._host)
        if self._filter.active:
            chosen = self._filter.mask(closes, verdicts_of(closes, reasons))
            closes, reasons = taken(closes, chosen), reasons[chosen]
        if self._view is not None:
            # Each CPU has its own ring: a batch is in order of time within each only.
            order = np.argsort(closes["closed_ns"], kind="stable")
            closes, reasons = taken(closes, order), reasons[order]
        if self._count is not None:
            left = self._count - self.totals.shown
            closes, reasons = closes[:left], reasons[:left]
        self.totals.add(closes, reasons)
        if self._counted is not None:
            self._counted(closes, reasons)
        if self._view is not None and len(closes):
            self._show(self._view, closes, verdicts_of(closes, reasons))

    def _show(self, view: View, closes: Records, verdicts: Verdicts) -> None:
        self._resolve(closes)
        for at in range(0, len(closes), SHOWN_AT_ONCE):
            part = slice(at, at + SHOWN_AT_ONCE)
            view.closes(self._closes(closes[part], verdicts[part]))
            if self._meanwhile is not None:
                self._meanwhile()

    def _closes(self, closes: Records, verdicts: Verdicts) -> list[Close]:
        return closes_from(closes, verdicts, self._host, self._names.paths, self._clock_ns)

    # Names go into the recording before the closes that need them, as a replay reads on only.
    def _resolve(self, records: Records) -> None:
        if self._ask_names is None:
            return
        missing = self._names.missing(np.unique(records["cgroup_id"]).tolist())
        if missing:
            self.feed(self._ask_names(missing))


def run(batches: Iterable[Batch], session: Session, stop: Stop) -> None:
    """Feed the session until the batches end, it has shown enough, or somebody asks to stop."""
    for batch in batches:
        session.feed(batch)
        if session.done or stop.asked:
            break
