# SPDX-License-Identifier: Apache-2.0
"""Draw real connections: the last ones of a recording, or the next ones of this host."""

from __future__ import annotations

import sys
from collections import deque
from typing import TYPE_CHECKING

from tracer import runs
from tracer.errors import FourwaveError, RecordingError
from tracer.filters import Filter
from tracer.outputs import explained
from tracer.outputs.text import plural
from tracer.recording import RecordingSource
from tracer.session import Limits, Session, View, run
from tracer.session_live import Live, Stop

if TYPE_CHECKING:
    from tracer.close import Close
    from tracer.kernel.source import KernelSource
    from tracer.tcp import HostFacts
    from tracer.verdict import Verdicts
    from tracer.wire import Records


class Printer:
    """A view that draws each close at once."""

    def __init__(self, wishes: runs.Wishes) -> None:
        self._wishes = wishes
        self.shown = 0

    def closes(self, closes: list[Close]) -> None:
        """Draw these."""
        for close in closes:
            sys.stdout.write(self._form(close))
        sys.stdout.flush()

    def _form(self, close: Close) -> str:
        self.shown += 1
        if self._wishes.as_json:
            return explained.as_json(close)
        gap = "\n" if self.shown > 1 else ""
        encoding, color = sys.stdout.encoding, self._wishes.color
        return gap + explained.as_text(close, encoding=encoding, color=color)


class Last:
    """A view that keeps the last `count` closes."""

    def __init__(self, count: int) -> None:
        self.kept: deque[Close] = deque(maxlen=count)

    def closes(self, closes: list[Close]) -> None:
        """Keep these; older ones make room."""
        self.kept.extend(closes)


class LastSession(Session):
    """Makes objects of the last `count` closes of each batch: no others can be the last of all."""

    def __init__(self, host: HostFacts, view: Last, chosen: Filter) -> None:
        super().__init__(host, view=view, chosen=chosen)
        self._most = view.kept.maxlen or 1

    def _show(self, view: View, closes: Records, verdicts: Verdicts) -> None:
        super()._show(view, closes[-self._most :], verdicts[-self._most :])


def recorded(path: str, wishes: runs.Wishes) -> None:
    """Draw the last matching closes of a recording, the oldest of them first.

    Raises RecordingError, after the drawing where the recording is damaged at its end,
    and FourwaveError when nothing matches.
    """
    last = Last(wishes.count or 1)
    with RecordingSource(path) as source, Stop() as stop:
        session = LastSession(runs.host_facts(source), last, Filter(**wishes.filters))
        run(source, session, stop)
        records = session.finish().records
        if stop.asked:
            raise KeyboardInterrupt
    Printer(wishes).closes(list(last.kept))
    if source.damage is not None:
        raise RecordingError(f"{path} is damaged {source.damage}; all before that was read")
    if not last.kept:
        raise FourwaveError(f"{path}: {_none_of(records)}")


def upcoming(source: KernelSource, wishes: runs.Wishes) -> None:
    """Draw the next matching closes of this host.

    Raises FourwaveError when none came in time, KeyboardInterrupt when interrupted before any.
    """
    limits = Limits(count=wishes.count or 1, duration_s=wishes.duration_s)
    live, printer = Live(source, limits), Printer(wishes)
    session = Session(
        source.host,
        view=printer,
        chosen=Filter(**wishes.filters),
        limits=limits,
        ask_names=source.cgroup_names,
        meanwhile=live.fetch,
        warn=runs.tell,
    )
    with Stop() as stop:
        runs.tell("ready: waiting for the next TCP close on this host that matches")
        run(live.batches(stop), session, stop)
        for batch in () if session.done else live.rest():
            session.feed(batch)
        records = session.finish().records
    if not printer.shown and stop.asked:
        raise KeyboardInterrupt
    if not printer.shown:
        raise FourwaveError(f"nothing to draw within {wishes.duration_s:g} s: {_none_of(records)}")


def _none_of(records: int) -> str:
    return f"none of {plural(records, 'close')} matched" if records else "no connection was closed"
