# SPDX-License-Identifier: Apache-2.0
"""Where local ports run out: per source address and destination, never per host.

connect() needs a port of ip_local_port_range that is free towards this destination. Connections
take one, and so does TIME_WAIT, for a minute; how it goes on from here is known in advance,
because every TIME_WAIT says when it ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from tracer.census import REMAINING_STEP_S, REMAINING_STEPS
from tracer.detectors.finding import Severity
from tracer.detectors.local_port_range import NEVER, capacities, reused
from tracer.detectors.port_openers import PortOpeners
from tracer.detectors.port_users import PortUser, PortUsers
from tracer.detectors.rows import text_of
from tracer.why_facts import duration

if TYPE_CHECKING:
    import numpy.typing as npt

    from tracer.census import Census, Rows

    Reals = npt.NDArray[np.float64]

TIGHT_SHARE: Final = 0.8
FINDINGS_MAX: Final = 1_000  # destinations that become objects; the fullest
US_PER_S: Final = 1_000_000


class PortVerdict(IntEnum):
    """How it stands with the ports towards one destination."""

    FINE = 0
    TIGHT = 1
    RUNS_OUT = 2
    EXHAUSTED = 3
    UNKNOWN = 4

    @property
    def label(self) -> str:
        """JSON value and metric label."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class PortsFinding:
    """The local ports of one (netns, laddr, raddr, rport); None where the range is not known."""

    verdict: PortVerdict
    severity: Severity
    why: str
    advice: str
    netns: int
    laddr: str
    raddr: str
    rport: int
    in_use: int
    time_wait: int
    fin_wait2: int
    users: tuple[PortUser, ...]
    """Who has most of the open connections; empty when the census was not asked."""
    openers: tuple[PortUser, ...]
    """Who opened most connections that ended while closes were followed."""
    remaining: tuple[int, ...]
    """Of the TIME_WAITs, how many end within 5 s, 10 s, … 60 s."""
    capacity: int | None
    """Ports of ip_local_port_range that are not reserved, and nobody listens on."""
    available: int | None
    """At most: ports bound to something else may be among them."""
    reusable: int | None
    """TIME_WAITs that tcp_tw_reuse lets connect() take: all but the last second's."""
    entered_per_s: float
    """TIME_WAITs that began, over the last five seconds."""
    exhausted_in_s: float | None
    """When the ports run out if connections close as fast as now; None: not at this rate."""


class LocalPorts:
    """Judges censuses as they come; each stands alone. `openers` know the closes."""

    name: Final = "local_ports"

    def __init__(self, openers: PortOpeners | None = None) -> None:
        self._openers = openers or PortOpeners()

    def look(self, census: Census) -> tuple[PortsFinding, ...]:
        """Return the destinations, those that run out first, then the fullest."""
        rows = census.ports[census.ports["inbound"] == 0]
        if not len(rows):
            return ()
        capacity = capacities(rows, census)
        reusable = reused(rows, census)
        exhausted_s = forecast(rows, capacity, reusable)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(capacity > 0, rows["in_range"] / capacity, 0.0)
        users = PortUsers(census)
        order = np.lexsort((-rows["in_range"].astype(np.int64), -share, exhausted_s))
        return tuple(
            _finding(
                rows[i], capacity[i], bool(reusable[i]), float(exhausted_s[i]), users, self._openers
            )
            for i in order[:FINDINGS_MAX]
        )


def forecast(rows: Rows, capacity: Reals, reused: npt.NDArray[np.bool_]) -> Reals:
    """Return the seconds until the ports run out, NEVER where they do not at this rate.

    In k steps the TIME_WAITs that end until then are gone, and k times what began in the newest
    step has come; after a minute as many end as begin. Where TIME_WAITs are reused those of the
    last second still block. Shape (rows,).
    """
    remaining = rows["remaining"].astype(np.float64)
    per_step = remaining[:, -1]
    steps = np.arange(REMAINING_STEPS + 1)
    ends_after = np.concatenate(
        [remaining[:, ::-1].cumsum(axis=1)[:, ::-1], np.zeros((len(rows), 1))], axis=1
    )
    waiting = ends_after + per_step[:, None] * steps
    connected = rows["in_range"] - np.minimum(rows["time_wait"], rows["in_range"])
    last_second = per_step[:, None] / REMAINING_STEP_S
    level = connected[:, None] + np.where(reused[:, None], last_second, waiting)
    full = level >= capacity[:, None]
    first = full.argmax(axis=1)
    return np.where(full.any(axis=1), _crossing(level, capacity, first), NEVER)


# Between two steps it goes straight.
def _crossing(level: Reals, capacity: Reals, first: npt.NDArray[np.intp]) -> Reals:
    each = np.arange(len(level))
    after, before = level[each, first], level[each, np.maximum(first - 1, 0)]
    rise = np.where(after > before, after - before, 1.0)
    part = np.where(first > 0, (capacity - before) / rise, 1.0)
    seconds: Reals = (np.maximum(first - 1, 0) + np.where(first > 0, part, 0.0)) * REMAINING_STEP_S
    return seconds


def _finding(
    row: npt.NDArray[np.void],
    capacity: float,
    reused: bool,
    exhausted_s: float,
    users: PortUsers,
    openers: PortOpeners,
) -> PortsFinding:
    limit = None if capacity == NEVER else int(capacity)
    taken, family = int(row["in_range"]), int(row["family"])
    per_s = float(row["remaining"][-1]) / REMAINING_STEP_S
    time_wait = int(row["time_wait"])
    reusable = max(0, time_wait - int(per_s)) if reused else 0
    ends_s = None if exhausted_s == NEVER else exhausted_s
    verdict = _verdict(limit, taken - reusable, ends_s)
    return PortsFinding(
        verdict=verdict,
        severity=SEVERITIES[verdict],
        why=_why(verdict, row, per_s, ends_s, reusable),
        advice=_advice(verdict, row),
        netns=int(row["netns"]),
        laddr=text_of(row["laddr"], family),
        raddr=text_of(row["raddr"], family),
        rport=int(row["rport"]),
        in_use=int(row["in_use"]),
        time_wait=time_wait,
        fin_wait2=int(row["fin_wait2"]),
        users=users.of(row),
        openers=openers.of(row),
        remaining=tuple(row["remaining"].tolist()),
        capacity=limit,
        available=None if limit is None else max(0, limit - taken),
        reusable=None if limit is None else reusable,
        entered_per_s=per_s,
        exhausted_in_s=ends_s,
    )


def _verdict(limit: int | None, blocking: int, ends_s: float | None) -> PortVerdict:
    if limit is None:
        return PortVerdict.UNKNOWN
    if blocking >= limit:
        return PortVerdict.EXHAUSTED
    if ends_s is not None:
        return PortVerdict.RUNS_OUT
    return PortVerdict.TIGHT if blocking >= TIGHT_SHARE * limit else PortVerdict.FINE


SEVERITIES: Final = {
    PortVerdict.FINE: Severity.OK,
    PortVerdict.UNKNOWN: Severity.OK,
    PortVerdict.TIGHT: Severity.NOTICE,
    PortVerdict.RUNS_OUT: Severity.WARNING,
    PortVerdict.EXHAUSTED: Severity.CRITICAL,
}


def _why(
    verdict: PortVerdict,
    row: npt.NDArray[np.void],
    per_s: float,
    ends_s: float | None,
    reusable: int,
) -> str:
    taken = _most(row)
    if verdict == PortVerdict.UNKNOWN:
        return "The range of local ports of this namespace is not known."
    if verdict == PortVerdict.EXHAUSTED:
        return f"No local port is left, most are {taken}: connect() fails with EADDRNOTAVAIL."
    if verdict == PortVerdict.RUNS_OUT:
        span = duration(int((ends_s or 0) * US_PER_S))
        return f"{per_s:,.0f} a second enter TIME_WAIT: at this rate no port is left in {span}."
    if verdict == PortVerdict.TIGHT:
        return f"Most ports are taken, most of them {taken}; at this rate it stays so."
    if reusable:
        return f"tcp_tw_reuse lets connect() take {reusable:,} of the TIME_WAITs again."
    return "At this rate there are always ports left."


def _most(row: npt.NDArray[np.void]) -> str:
    kinds = {
        "in TIME_WAIT": int(row["time_wait"]),
        "connected": int(row["in_use"]),
        "waiting for the peer's FIN": int(row["fin_wait2"]),
    }
    return max(kinds, key=lambda kind: kinds[kind])


_ADVICE: Final = {
    "in TIME_WAIT": (
        "Keep connections open (keep-alive, a pool) or let the other side close first; "
        "net.ipv4.tcp_tw_reuse=1 makes ports free again after a second."
    ),
    "connected": (
        "Use fewer connections, more addresses on either side, "
        "or a wider net.ipv4.ip_local_port_range."
    ),
    "waiting for the peer's FIN": (
        "The peer does not close its side: make it, or lower net.ipv4.tcp_fin_timeout."
    ),
}


def _advice(verdict: PortVerdict, row: npt.NDArray[np.void]) -> str:
    return "" if SEVERITIES[verdict] == Severity.OK else _ADVICE[_most(row)]
