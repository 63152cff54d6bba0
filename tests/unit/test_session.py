# SPDX-License-Identifier: Apache-2.0
"""The loop: what goes in comes out judged, filtered, counted, recorded, and nothing twice."""

from __future__ import annotations

import contextlib
import json
import select
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.unit import builders as b
from tracer import session_live
from tracer.__main__ import Interrupt
from tracer.amend import HOLD_NS
from tracer.batch import Batch, BatchKind
from tracer.filters import Filter
from tracer.recording import RecordingSource, RecordingWriter
from tracer.session import NAMES_MAX, Limits, Names, Session, run
from tracer.session_live import TICK_S, Live, Pace, Stop, next_tick_s
from tracer.tcp import ConnFlag, Handshake, Kind, RecordType
from tracer.wire import encode_closes

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from pathlib import Path

    from tracer.close import Close
    from tracer.wire import Records

CLOCK_NS = 1_700_000_000 * 10**9


class Shown:
    """A view that keeps everything."""

    def __init__(self) -> None:
        self.all: list[Close] = []

    def closes(self, closes: list[Close]) -> None:
        """Keep them."""
        self.all += closes


class Kernel:
    """A source made by hand: hands out the given drains, one per call."""

    ring_bytes = 1 << 20
    waiting_bytes = 0
    has_moved = False

    def __init__(self, drains: Iterable[Records] = (), rings: int = 1) -> None:
        self.rings = rings
        self.waiting = [encode_closes(records) for records in drains]
        self.asked: list[list[int]] = []
        self.total = sum(len(records) for records in drains)

    def wait(self, limit_s: float, *also: int) -> None:
        """Return once a descriptor is readable; no record comes meanwhile."""
        select.select(also, [], [], limit_s)

    def drain(self) -> Batch | None:
        """Return the next drain."""
        return batch(BatchKind.CLOSES, self.waiting.pop(0)) if self.waiting else None

    def take(self) -> Generator[Batch]:
        """Yield the next drains where they lie, as many as rings: overwritten once used."""
        for _ in range(min(self.rings, len(self.waiting))):
            taken = bytearray(self.waiting.pop(0))
            try:
                yield Batch(BatchKind.CLOSES, 0, memoryview(taken))
            finally:
                taken[:] = bytes(len(taken))

    def sweep(self) -> None:
        """Find nothing: every close was told of."""

    def stop_following(self) -> None:
        """Hand out what is left all the same."""

    def counters(self) -> Batch:
        """Return totals that fit."""
        return batch(BatchKind.COUNTERS, {"closes": self.total, "emitted": self.total})

    def moved(self) -> bool:
        """Say what was set."""
        return self.has_moved

    def clock(self) -> Batch:
        """Return a wall clock far from zero."""
        return batch(BatchKind.CLOCK, {"realtime_minus_monotonic_ns": CLOCK_NS})

    def cgroup_names(self, ids: Iterable[int]) -> Batch:
        """Name them, and remember that they were asked for."""
        self.asked.append(list(ids))
        return batch(BatchKind.NAMES, {"cgroups": {str(n): f"/unit{n}" for n in self.asked[-1]}})


def batch(kind: BatchKind, content: bytes | dict[str, Any], mono_ns: int = 0) -> Batch:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Batch(kind, mono_ns, data)


def closes(*records: Records, mono_ns: int = 1 << 60) -> Batch:
    return batch(BatchKind.CLOSES, encode_closes(np.concatenate(records)), mono_ns)


def test_shows_counts_and_names() -> None:
    """One batch: every close is shown with wall time and cgroup, and counted."""
    shown, kernel = Shown(), Kernel()
    session = Session(b.HOST, view=shown, ask_names=kernel.cgroup_names)
    session.feed(kernel.clock())
    session.feed(closes(b.passive(cgroup_id=7), b.active(cgroup_id=7), b.aborted(cgroup_id=9)))
    assert [close.kind for close in shown.all] == ["passive", "active", "abort"]
    assert [close.cgroup for close in shown.all] == ["/unit7", "/unit7", "/unit9"]
    assert shown.all[0].at.startswith("2023-11-14T")
    seen = session.finish()
    assert (seen.records, seen.shown) == (3, 3)
    assert seen.closes[Kind.PASSIVE, Handshake.THREE_WAY] == 1
    assert kernel.asked == [[7, 9]]


def test_each_cgroup_is_asked_for_once() -> None:
    """Names are cached; 0 is no cgroup."""
    kernel = Kernel()
    session = Session(b.HOST, view=Shown(), ask_names=kernel.cgroup_names)
    for _ in range(3):
        session.feed(closes(b.passive(cgroup_id=7), b.passive(cgroup_id=0)))
    assert kernel.asked == [[7]]


def test_names_are_bounded() -> None:
    """A host with endless cgroups does not make the cache endless."""
    names = Names()
    names.learn({str(number): None for number in range(NAMES_MAX + 23)})
    assert len(names.paths) == NAMES_MAX
    assert names.missing([0, 1, NAMES_MAX]) == [1]


def test_without_a_view_nothing_is_resolved() -> None:
    """Counting alone makes no object and asks for no name."""
    kernel = Kernel()
    session = Session(b.HOST, ask_names=kernel.cgroup_names)
    session.feed(closes(*[b.passive(cgroup_id=7)] * 23))
    assert session.finish().shown == 23
    assert kernel.asked == []


def test_filter_hides_but_does_not_lose() -> None:
    """What does not match is neither shown nor in the table, but it is accounted for."""
    shown = Shown()
    session = Session(b.HOST, view=shown, chosen=Filter(kinds=(Kind.ABORT,)))
    session.feed(closes(*[b.passive()] * 4, b.aborted()))
    seen = session.finish()
    assert [close.kind for close in shown.all] == ["abort"]
    assert (seen.records, seen.shown) == (5, 1)


def test_count_stops_at_exactly_that_many() -> None:
    """--count counts what matches, and cuts a batch in the middle."""
    shown = Shown()
    session = Session(
        b.HOST, view=shown, chosen=Filter(kinds=(Kind.PASSIVE,)), limits=Limits(count=3)
    )
    batches = [closes(b.passive(), b.aborted(), b.passive()) for _ in range(5)]
    run(batches, session, Stop())
    assert session.done
    assert len(shown.all) == 3
    assert session.finish().shown == 3


def test_closes_are_shown_in_order_of_time() -> None:
    """Each CPU has a ring of its own; a person reads one order."""
    shown = Shown()
    session = Session(b.HOST, view=shown)
    session.feed(closes(*[b.reset(closed_ns=b.CLOSED_NS + at) for at in (5000, 9000, 1000)]))
    assert [close.at[-6:] for close in shown.all] == sorted(close.at[-6:] for close in shown.all)


def test_late_reset_is_merged_before_judging() -> None:
    """A close that a RST amends is judged once, with the RST."""
    shown = Shown()
    session = Session(b.HOST, view=shown)
    early = b.aborted(rst_flags=0, rst_sent_ns=0, rst_sent_state=0, cookie=5)
    early["flags"] |= np.uint32(ConnFlag.MAY_FOLLOW)
    report = b.aborted(cookie=5, type=RecordType.RESET)
    session.feed(closes(early, mono_ns=b.CLOSED_NS + 1))
    assert shown.all == []
    session.feed(closes(report, mono_ns=b.CLOSED_NS + 2))
    assert [close.timeline_us.get("rst_sent") is not None for close in shown.all] == [True]
    assert session.finish().records == 1


def test_what_closes_in_the_end_is_not_lost() -> None:
    """Only what was gone while closes were followed is missed; the totals come last."""
    calls: list[str] = []

    class Order(Kernel):
        def sweep(self) -> None:
            calls.append("sweep")

        def stop_following(self) -> None:
            calls.append("stop")

        def counters(self) -> Batch:
            calls.append("totals")
            return super().counters()

    list(Live(Order(), Limits()).rest())
    assert calls == ["sweep", "stop", "sweep", "totals"]


def test_a_report_without_its_close_is_counted() -> None:
    """A RST of a close that was lost; not one of before closes were followed."""
    session = Session(b.HOST)
    early = b.aborted(cookie=4, type=RecordType.RESET, rst_sent_ns=b.CLOSED_NS - 2000)
    first = b.passive(closed_ns=b.CLOSED_NS - 1000)
    report = b.aborted(cookie=5, type=RecordType.RESET, rst_sent_ns=b.CLOSED_NS)
    session.feed(closes(early, first, report, mono_ns=b.CLOSED_NS))
    session.feed(batch(BatchKind.CLOSES, b"", b.CLOSED_NS + 2 * HOLD_NS))
    snapshot = session.finish()
    assert (snapshot.records, snapshot.resets_unmatched) == (1, 1)


def test_a_report_that_comes_in_the_end_lacks_nothing() -> None:
    """Closes are not followed any more by then, RSTs are."""
    session = Session(b.HOST)
    session.feed(closes(b.aborted(cookie=5, type=RecordType.RESET), mono_ns=b.CLOSED_NS))
    assert session.finish().resets_unmatched == 0


def test_held_close_is_let_go_by_time_and_at_the_end() -> None:
    """A RST that never comes holds nothing for long."""
    session = Session(b.HOST)
    early = b.aborted()
    early["flags"] |= np.uint32(ConnFlag.MAY_FOLLOW)
    session.feed(closes(early, mono_ns=b.CLOSED_NS))
    assert session.totals.records == 0
    session.feed(batch(BatchKind.CLOSES, b"", b.CLOSED_NS + HOLD_NS))
    assert session.totals.records == 1
    session.feed(closes(early, mono_ns=b.CLOSED_NS))
    assert session.finish().records == 2


@pytest.mark.parametrize(
    "bad",
    [
        batch(BatchKind.CLOSES, b"x" * 23),
        batch(BatchKind.COUNTERS, b"not json"),
        batch(BatchKind.COUNTERS, b"[]"),
        batch(BatchKind.NAMES, b"{}"),
        batch(BatchKind.NAMES, b'{"cgroups": 3}'),
        batch(BatchKind.NAMES, b'{"cgroups": {"x": "/"}}'),
        batch(BatchKind.CLOCK, b'{"realtime_minus_monotonic_ns": "soon"}'),
        batch(BatchKind.CLOCK, b'{"realtime_minus_monotonic_ns": 1e400}'),
        batch(BatchKind.CLOCK, b"[" * 100_000),
    ],
)
def test_bad_batch_is_counted_and_the_loop_goes_on(bad: Batch) -> None:
    """An error belongs to one batch."""
    shown = Shown()
    session = Session(b.HOST, view=shown)
    session.feed(bad)
    session.feed(closes(b.passive(cgroup_id=1)))
    assert len(shown.all) == 1
    assert session.finish().lost["decode"] == 1


def test_recording_replays_to_the_same_closes(tmp_path: Path) -> None:
    """Live and replay differ in the source alone: the closes are equal, cgroups included."""
    path = str(tmp_path / "a.rec")
    live, again, kernel = Shown(), Shown(), Kernel()
    with RecordingWriter(path, {}) as writer:
        session = Session(b.HOST, view=live, recorder=writer, ask_names=kernel.cgroup_names)
        session.feed(kernel.clock())
        session.feed(closes(b.passive(cgroup_id=7), b.active_four(), b.reset(cgroup_id=8)))
        session.feed(kernel.counters())
    with RecordingSource(path) as source:
        replayed = Session(b.HOST, view=again)
        run(source, replayed, Stop())
    assert again.all == live.all
    assert [close.cgroup for close in again.all] == ["/unit7", None, "/unit8"]
    assert replayed.finish() == session.finish()


def test_closes_are_fetched_while_others_are_shown() -> None:
    """Showing takes long; the ring is emptied meanwhile."""
    calls: list[int] = []
    session = Session(b.HOST, view=Shown(), meanwhile=lambda: calls.append(1))
    session.feed(closes(*[b.passive()] * 200))
    assert len(calls) == 4


def feed_all(live: Live, session: Session, stop: Stop) -> None:
    """Run a live session to its end."""
    run(live.batches(stop), session, stop)
    for last in live.rest():
        session.feed(last)


@pytest.mark.parametrize("keep", [True, False])
def test_live_run_ends_after_its_duration_with_everything(*, keep: bool) -> None:
    """All drains arrive, the late ones too, and the totals agree."""
    kernel = Kernel([b.passive()] * 5)
    live = Live(kernel, Limits(duration_s=0.12), keep=keep)
    session = Session(b.HOST)
    started = time.monotonic()
    feed_all(live, session, Stop())
    while kernel.waiting:  # what the short run did not fetch
        session.feed(kernel.drain() or closes())
    assert 0.1 < time.monotonic() - started < 2
    assert session.finish().records == 5
    assert session.finish().unaccounted == 0


def test_few_closes_wait_where_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ring that is nearly empty is left alone until patience ends; one that fills is not."""
    monkeypatch.setattr(time, "sleep", lambda _s: None)
    kernel = Kernel([b.record(), b.record()])
    stop = Stop()
    patient = Pace(tick_s=0.001, patience_ns=10**12)
    live = Live(kernel, Limits(), patient, keep=False)
    live._taken_ns = time.monotonic_ns()
    assert list(live._closes_in_place(Stop())) == []
    kernel.waiting_bytes = kernel.ring_bytes // 2
    assert len(list(live._closes_in_place(Stop()))) == 1
    assert not stop.asked


def test_what_was_judged_in_place_does_not_come_again() -> None:
    """The loop ends while one ring's batch is out: its place is given back, the others wait."""
    kernel = Kernel([b.passive()] * 3, rings=2)
    stop, session = Stop(), Session(b.HOST)
    batches = Live(kernel, Limits(), keep=False).batches(stop)
    next(batches)
    taken = next(batches)
    session.feed(taken)
    batches.close()
    assert session.totals.records == 1
    assert not any(taken.data)
    assert len(kernel.waiting) == 2


def test_signal_ends_a_live_run() -> None:
    """SIGINT, SIGTERM and SIGHUP end the loop in order; the handlers are given back."""
    before = signal.getsignal(signal.SIGTERM)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        session = Session(b.HOST)
        with Stop() as stop:
            signal.raise_signal(number)
            feed_all(Live(Kernel([b.passive()]), Limits()), session, stop)
        assert session.finish().records == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_nohup_is_respected() -> None:
    """A SIGHUP that was ignored before stays ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stop() as stop:
            signal.raise_signal(signal.SIGHUP)
        assert not stop.asked
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_interrupt_that_was_swallowed_still_counts() -> None:
    """One that comes in a destructor is printed and forgotten by the interpreter."""
    before = signal.signal(signal.SIGINT, Interrupt())
    try:
        with Stop():
            pass  # nobody has interrupted
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), Stop():
            pass
    finally:
        signal.signal(signal.SIGINT, before)


def test_second_interrupt_does_not_wait() -> None:
    """Who presses Ctrl-C twice means it."""
    with Stop():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_backlog_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """When showing cannot keep up, memory does not grow without end: the kernel counts the loss."""
    monkeypatch.setattr(session_live, "BACKLOG_MAX_BYTES", 1000)
    kernel = Kernel([b.passive()] * 50)
    live = Live(kernel, Limits())
    for _ in range(50):
        live.fetch()
    assert len(kernel.waiting) > 40


def test_what_is_behind_can_be_counted_only() -> None:
    """A flood that is ended is not shown to its end; the summary still knows all of it."""
    kernel, view = Kernel([b.passive()] * 3), Shown()
    live, session = Live(kernel, Limits()), Session(b.HOST, view=view)
    live.fetch()
    kernel.waiting_bytes = 7
    assert live.behind_bytes == len(encode_closes(b.passive())) + 7
    session.feed(batch(BatchKind.CLOSES, encode_closes(b.passive())))
    session.only_count()
    for rest in live.rest():
        session.feed(rest)
    assert session.finish().records == 3
    assert len(view.all) == 1


@pytest.mark.parametrize(
    ("tick_s", "waiting_bytes", "expected_s"),
    [(0.05, 300, 0.05), (0.05, 600, 0.025), (0.01, 0, 0.02), (0.002, 1000, 0.002)],
)
def test_tick_follows_the_ring(tick_s: float, waiting_bytes: int, expected_s: float) -> None:
    """A ring that fills is visited sooner."""
    assert next_tick_s(tick_s, waiting_bytes, 1000) == pytest.approx(expected_s)


def test_an_idle_ring_is_visited_seldomer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice as long each time, up to the limit; as soon as something waits, as often as before."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    kernel = Kernel()
    live = Live(kernel, Limits(), Pace(tick_s=0.1, idle_tick_s=0.25), keep=False)
    for _ in range(4):
        list(live._closes_in_place(Stop()))
    assert slept == [0.1, 0.2, 0.25, 0.25]
    kernel.waiting_bytes = kernel.ring_bytes // 4
    for _ in range(2):
        list(live._closes_in_place(Stop()))
    assert slept[-1] == 0.1


def test_with_empty_rings_the_kernel_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as there is nothing to come by for; every signal ends the waiting, once."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    kernel = Kernel()
    live = Live(kernel, Limits(), Pace(tick_s=0.1, asleep_s=60), keep=False)
    with Stop() as stop:
        for _ in range(2):
            threading.Timer(0.01, signal.raise_signal, [signal.SIGTERM]).start()
            list(live._closes_in_place(stop))
            assert not select.select([stop.signals], [], [], 0)[0]
        assert stop.asked
    assert slept == []
    kernel.waiting_bytes = 1
    list(live._closes_in_place(Stop()))
    assert slept == [0.1]


def test_totals_that_stand_still_are_read_seldomer() -> None:
    """Every second while connections close, and until all of those were counted."""
    kernel, second_ns = Kernel(), 1_000_000_000
    live = Live(kernel, Limits(), Pace(still_ns=5 * second_ns), keep=False)
    moves = {2 * second_ns, 7 * second_ns}
    read = []
    for now_ns in range(10 * second_ns, 40 * second_ns, second_ns):
        kernel.has_moved = now_ns - 20 * second_ns in moves
        if live._counters_due(now_ns):
            live._counters_ns = now_ns
            read.append(now_ns // second_ns)
    assert read == [10, 15, 20, 22, 23, 24, 27, 28, 29, 34, 39]


@pytest.mark.parametrize("keep", [True, False])
def test_tick_follows_the_fullest_ring(keep: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came by several rings together is no reason to hurry."""
    monkeypatch.setattr(time, "sleep", lambda _s: None)
    kernel = Kernel([b.passive()] * 8, rings=4)
    kernel.ring_bytes = 2 * len(encode_closes(b.passive()))
    live = Live(kernel, Limits(), keep=keep)
    look = live.fetch if keep else lambda: list(live._closes_in_place(Stop()))
    look()
    assert live._tick_s == TICK_S
    kernel.waiting_bytes = kernel.ring_bytes
    look()
    assert live._tick_s == TICK_S / 2
