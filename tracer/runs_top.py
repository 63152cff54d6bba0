# SPDX-License-Identifier: Apache-2.0
"""Closes by process and service or destination: live, again and again, or of a recording."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tracer import runs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tracer.batch import Batch
    from tracer.detectors.close_rates import CloseCounts, CloseGroup, CloseRates
    from tracer.outputs.screen import Screen
    from tracer.session import Session
    from tracer.session_live import Live, Stop
    from tracer.tcp import HostFacts

NS_PER_S: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line asked for, as plain values."""

    filters: dict[str, Any]
    every_s: float = 2.0
    duration_s: float | None = None
    sort: str = "closes"
    limit: int = 20
    as_json: bool = False
    color: bool = False


def top(wishes: Wishes) -> None:
    """Show who ends connections, until told to stop. Raises HostError."""
    with runs.attach() as source:
        from tracer.detectors.close_rates import CloseRates  # noqa: PLC0415
        from tracer.outputs.screen import Screen  # noqa: PLC0415
        from tracer.session import Limits  # noqa: PLC0415
        from tracer.session_live import COUNTING, Live, Stop  # noqa: PLC0415

        rates = CloseRates()
        run = _session(source.host, rates, wishes)
        live = Live(source, Limits(duration_s=wishes.duration_s), COUNTING, keep=False)
        screen = Screen(sys.stdout, repaint=True)
        with Stop() as stop:
            runs.tell("ready: counting every TCP close on this host")
            _follow(live, run, stop, rates, screen, wishes)
            for batch in live.rest():
                run.feed(batch)
    runs.summarize(run.finish(), as_json=wishes.as_json)


def report(path: str, wishes: Wishes) -> None:
    """Show who ended connections in a recording. Raises RecordingError, after what was whole."""
    from tracer import session, session_live  # noqa: PLC0415 - numpy
    from tracer.detectors.close_rates import CloseRates  # noqa: PLC0415
    from tracer.errors import RecordingError  # noqa: PLC0415
    from tracer.outputs.screen import Screen  # noqa: PLC0415
    from tracer.recording import RecordingSource  # noqa: PLC0415

    rates, span = CloseRates(), Span()
    with RecordingSource(path) as source, session_live.Stop() as stop:
        run = _session(runs.host_facts(source), rates, wishes)
        session.run(span.over(source), run, stop)
        snapshot = run.finish()
        screen = Screen(sys.stdout, repaint=False)
        _show(screen, rates.totals(), span.length_s, span.last_ns, wishes)
        runs.summarize(snapshot, as_json=wishes.as_json)
        if source.damage is not None:
            raise RecordingError(f"{path} is damaged {source.damage}; all before that was read")


def _follow(
    live: Live, run: Session, stop: Stop, rates: CloseRates, screen: Screen, wishes: Wishes
) -> None:
    shown_ns = time.monotonic_ns()
    for batch in live.batches(stop):
        run.feed(batch)
        span_s = (time.monotonic_ns() - shown_ns) / NS_PER_S
        if span_s >= wishes.every_s:
            shown_ns = time.monotonic_ns()
            _show(screen, rates.lately(), span_s, shown_ns, wishes)


def _show(
    screen: Screen,
    counts: Mapping[CloseGroup, CloseCounts],
    span_s: float,
    mono_ns: int | None,
    wishes: Wishes,
) -> None:
    from tracer.outputs import top as form  # noqa: PLC0415

    rows = form.first(counts, wishes.sort, wishes.limit)
    if wishes.as_json:
        sys.stdout.writelines(form.as_json(rows, mono_ns, span_s))
        sys.stdout.flush()
    else:
        screen.show(form.as_lines(rows, len(counts), span_s, screen.width, color=wishes.color))


def _session(host: HostFacts, rates: CloseRates, wishes: Wishes) -> Session:
    from tracer.filters import Filter  # noqa: PLC0415
    from tracer.session import Session  # noqa: PLC0415

    return Session(host, chosen=Filter(**wishes.filters), counted=rates.add, warn=runs.tell)


class Span:
    """From the first to the last batch that went by."""

    def __init__(self) -> None:
        self._first_ns: int | None = None
        self.last_ns: int | None = None

    @property
    def length_s(self) -> float:
        """0 for one batch or none."""
        return ((self.last_ns or 0) - (self._first_ns or 0)) / NS_PER_S

    def over(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Let them pass."""
        for batch in batches:
            if self._first_ns is None:
                self._first_ns = batch.mono_ns
            self.last_ns = batch.mono_ns
            yield batch
