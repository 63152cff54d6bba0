# SPDX-License-Identifier: Apache-2.0
"""One run: capture both ends, make traffic, collect records, judge, compare."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tests.pace import allowed_s
from tests.truth.capture import capture
from tests.truth.compare import Record, Report, compare
from tests.truth.consistent import contradictions
from tests.truth.judge import Truth, judge_all
from tests.truth.packets import connections, read_segments
from tests.truth.wire import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.truth.capture import Capture
    from tests.truth.netns import Net, Side
    from tests.truth.sockets import Made
    from tests.truth.watch import Watch

SETTLE_S = allowed_s(20.0)


@dataclass(frozen=True, slots=True)
class Run:
    """What was made, what the packets say, what the tracer said."""

    made: list[Made]
    truths: list[Truth]
    records: list[Record]
    lost_before: int = 0

    @property
    def report(self) -> Report:
        """The comparison of packets and records, and of each record with itself."""
        report = compare(self.truths, self.records)
        judged = ((record, contradictions(record)) for record in self.records)
        report.inconsistent = [(record, broken) for record, broken in judged if broken]
        return report

    def without_time_wait(self) -> Run:
        """Return the run as judged by packets that cannot show whether TIME_WAIT was made."""
        return replace(self, truths=[truth.without_time_wait() for truth in self.truths])


def capture_sides(net: Net) -> list[tuple[Side, Side]]:
    """Return (captured side, its peer): one on loopback, else both, each with its own truth."""
    both = [(net.client, net.server), (net.server, net.client)]
    return both[:1] if net.client is net.server else both


def truths_of(captures: list[tuple[Side, Path]], *, local_only: bool) -> list[Truth]:
    """Judge each capture; `local_only` keeps the ends that live where it was taken."""
    truths = []
    for side, path in captures:
        judged = judge_all(connections(read_segments(path)))
        mine = side.address.values()
        truths += [truth for truth in judged if not local_only or truth.local[0] in mine]
    return truths


def settle(net: Net) -> None:
    """Return once no socket of the network has anything left to send or to wait for."""
    sides = {net.client.ns, net.server.ns}
    wait_until(lambda: not sum(ns.busy_sockets() for ns in sides), "closed sockets", SETTLE_S)


def run(net: Net, folder: Path, traffic: Callable[[], list[Made]], watch: Watch | None) -> Run:
    """Capture while `traffic` runs and until every end it made has closed."""
    sides = capture_sides(net)
    since = watch.mark() if watch is not None else 0
    lost_before = watch.lost() if watch is not None else 0
    with contextlib.ExitStack() as stack:
        running: list[tuple[Side, Capture]] = []
        for index, (side, peer) in enumerate(sides):
            path = folder / f"{net.name}{index}.pcap"
            running.append((side, stack.enter_context(capture(side, path, peer))))
        made = traffic()
        settle(net)
        records: list[Record] = []
        if watch is not None:
            ends = sum(connection.ends for connection in made)
            records = watch.wait_records(net.inums, since, ends)
        files = [(side, one.finish()) for side, one in running]
    return Run(made, truths_of(files, local_only=len(sides) > 1), records, lost_before)
