# SPDX-License-Identifier: Apache-2.0
"""Take censuses of this host, one or as often as the user asked for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from tracer.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from tracer.census import Census
    from tracer.kernel.census import CensusSource
    from tracer.runs_beside import Follower
    from tracer.runs_census import Wishes
    from tracer.session_live import Stop
    from tracer.tcp import TcpState

LOOKS_OVER: Final = 12
LOOK_EVERY_MIN_S: Final = 0.5
NAP_S: Final = 0.05


def attach() -> CensusSource:
    """Return this host as a source of censuses; numpy comes in while the loader works."""
    from tracer.kernel.census import CensusSource  # noqa: PLC0415

    return CensusSource(CensusSource.load())


def censuses(
    source: CensusSource,
    wishes: Wishes,
    stop: Stop,
    *,
    rows: Collection[TcpState],
    users: bool,
    beside: Follower | None = None,
) -> Iterator[tuple[Census, bool]]:
    """Take censuses on the timetable the user asked for; with each, whether it is to be shown.

    What comes `beside` is fetched all the time, and last when a census has been taken. An end
    asked for while only looking brings what was seen till then. Raises HostError.
    """
    began, every_s = time.monotonic(), max(LOOK_EVERY_MIN_S, wishes.over_s / LOOKS_OVER)
    while True:
        taken = [take(source, wishes.netns, rows, users=users)]
        if beside is not None:
            beside.fetch()
        left_s = began + wishes.over_s - time.monotonic()
        shown = left_s <= 0 or stop.asked
        yield taken.pop(), shown  # none is kept while the next is taken
        if stop.asked or (shown and wishes.watch_s is None):
            return
        _nap((wishes.watch_s or 0.0) if shown else min(every_s, left_s), stop, beside)
        if shown and _asked(stop):
            return


def take(
    source: CensusSource,
    netns: Collection[int],
    rows: Collection[TcpState],
    *,
    users: bool = False,
) -> Census:
    """Take one census of these namespaces, none: of all. Raises HostError.

    `rows`: whose sockets are needed one by one; those of all others are counted only.
    """
    from tracer.wire_census import decode_census  # noqa: PLC0415

    chosen = set(netns) or None
    try:
        batch = source.take(chosen, rows=rows, owners=True, users=users)
    except OSError as error:
        raise HostError(
            f"cannot take a census: {error}; run it as root (sudo fourwave …)"
        ) from error
    return decode_census(bytes(batch.data))


# Asked anew: it changes while we sleep.
def _asked(stop: Stop) -> bool:
    return stop.asked


def _nap(pause_s: float, stop: Stop, beside: Follower | None) -> None:
    until = time.monotonic() + pause_s
    while not stop.asked and (left_s := until - time.monotonic()) > 0:
        time.sleep(min(NAP_S, left_s))
        if beside is not None:
            beside.fetch()
