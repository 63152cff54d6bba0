# SPDX-License-Identifier: Apache-2.0
"""Lines of the summary on the FIN's ACK, lost data, TIME_WAIT, and RSTs without a connection."""

from __future__ import annotations

import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Final

from tracer.tcp import AckFate, Stray, TimeWait, TimeWaitChange

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracer.aggregator import Snapshot

WIDTH: Final = 79
PORTS_SHOWN: Final = 5

FATES: Final = {
    AckFate.MERGED: "on our FIN",
    AckFate.DATA: "on data",
    AckFate.TIMER: "by the delayed-ACK timer",
    AckFate.TICK: "by a timer of one tick",
    AckFate.QUICK_ROUTE: "at once by the route",
    AckFate.REPEATED_FIN: "for a repeated FIN",
    AckFate.HOLE_FILLED: "at once for a filled hole",
    AckFate.FULL_FRAME: "at once for a full-sized segment",
    AckFate.AT_ONCE: "at once",
    AckFate.UNKNOWN: "not known",
}
CHANGES: Final = {
    TimeWaitChange.PEER_FIN: "entered by the peer's late FIN",
    TimeWaitChange.RESTARTED_BY_FIN: "begun again by a repeated FIN",
    TimeWaitChange.RESTARTED_BY_OTHER: "begun again by another segment",
    TimeWaitChange.ENDED_BY_RST: "ended by a RST",
    TimeWaitChange.ENDED_BY_SYN: "ended by a SYN",
    TimeWaitChange.ENDED_BY_DATA: "ended by data before the peer's FIN",
    TimeWaitChange.REUSED: "taken over by connect()",
    TimeWaitChange.DESTROYED: "destroyed",
}
STRAYS: Final = {
    Stray.NO_SOCKET: "nothing listens there",
    Stray.TIME_WAIT: "already in TIME_WAIT",
    Stray.HANDSHAKE: "no good handshake",
}


def evidence(snapshot: Snapshot) -> Iterator[str]:
    """Yield the lines there is something to say for, none longer than a terminal."""
    lines = (_fates, _losses, _time_wait, _time_wait_changes, _strays)
    for line in (say(snapshot) for say in lines):
        yield from textwrap.wrap(line, WIDTH, subsequent_indent="  ")


def _fates(snapshot: Snapshot) -> str:
    fates = snapshot.ack_fates
    parts = [f"{fates[fate]:,} {words}" for fate, words in FATES.items() if fate in fates]
    return f"Where the peer closed first, our ACK left: {', '.join(parts)}." if parts else ""


def _losses(snapshot: Snapshot) -> str:
    by_answer: Counter[bool | None] = Counter()
    for (_, lost), count in snapshot.data_lost.items():
        by_answer[lost] += count
    total = by_answer.total()
    if not total:
        return ""
    unknown = f", {by_answer[None]:,} not known" if by_answer[None] else ""
    return f"Data lost by {by_answer[True]:,} of {total:,} aborts, resets and timeouts{unknown}."


def _time_wait(snapshot: Snapshot) -> str:
    ends = snapshot.time_wait
    if not ends:
        return ""
    orphaned = ends.get(TimeWait.ORPHANED, 0)
    parts = [f"{ends.get(TimeWait.ENTERED, 0):,} entered"]
    if orphaned:
        parts.append(f"{orphaned:,} left to await the peer's FIN first")
    if refused := ends.get(TimeWait.REFUSED, 0):
        parts.append(f"{refused:,} REFUSED for want of room")
    if unknown := ends.get(TimeWait.UNKNOWN, 0):
        parts.append(f"{unknown:,} not known")
    return f"TIME_WAIT: {', '.join(parts)}."


def _time_wait_changes(snapshot: Snapshot) -> str:
    changes = snapshot.time_wait_changes or {}
    parts = [f"{changes[one]:,} {words}" for one, words in CHANGES.items() if changes.get(one)]
    return f"TIME_WAIT of the whole host: {', '.join(parts)}." if parts else ""


def _strays(snapshot: Snapshot) -> str:
    by_port: Counter[tuple[int, Stray]] = Counter()
    for stray in snapshot.strays:
        by_port[stray.lport, stray.cause] += stray.resets
    lost = snapshot.kernel.get("strays_lost", 0)
    if not by_port:
        return ""
    parts = [
        f"{count:,} from port {port} ({STRAYS.get(cause, 'not known')})"
        for (port, cause), count in by_port.most_common(PORTS_SHOWN)
    ]
    rest = by_port.total() + lost - sum(count for _, count in by_port.most_common(PORTS_SHOWN))
    if rest:
        parts.append(f"{rest:,} on other ports")
    return f"RSTs without a connection: {', '.join(parts)}."
