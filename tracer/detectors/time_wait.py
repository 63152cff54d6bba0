# SPDX-License-Identifier: Apache-2.0
"""Who pays for TIME_WAIT: which services and destinations own the mini-sockets, and why there.

Whoever closes first has the TIME_WAIT (RFC 9293 section 3.6). A service that closes first pays
with memory alone, who connects and closes first pays with a local port for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from tracer.census import REMAINING_STEP_S
from tracer.detectors.finding import Severity
from tracer.detectors.holders import Holders
from tracer.detectors.rows import in_state, text_of
from tracer.tcp import TcpState

if TYPE_CHECKING:
    import numpy.typing as npt

    from tracer.census import Census
    from tracer.detectors.holders import Holder

FINDINGS_MAX: Final = 1_000  # services and destinations that become objects; the largest
SERVED: Final = (
    "We accept and close first: it costs memory, no local ports. "
    "Let clients close, or keep connections alive, to have fewer."
)
CONNECTED: Final = (
    "We connect and close first: each holds a local port for a minute. "
    "Keep connections alive, or let the other side close first."
)
OVERFLOW_SHARE: Final = 0.9


@dataclass(frozen=True, slots=True)
class TimeWaitFinding:
    """The TIME_WAITs of one service (`lport`), or towards one destination (the other three)."""

    severity: Severity
    advice: str
    netns: int
    lport: int | None
    holders: tuple[Holder, ...]
    """Of the service: the first few who listen on the port, where that was asked for."""
    holder_count: int
    laddr: str | None
    raddr: str | None
    rport: int | None
    in_use: int
    time_wait: int
    fin_wait2: int
    """Mini-sockets that still wait for the peer's FIN."""
    remaining: tuple[int, ...]
    """Of `time_wait`, how many end within 5 s, 10 s, … 60 s."""
    share: float
    """Of the namespace's."""
    entered_per_s: float
    """Over the last five seconds."""


@dataclass(frozen=True, slots=True)
class TimeWaitTotal:
    """One network namespace; None where it was not told."""

    severity: Severity
    why: str
    advice: str
    netns: int
    served: int
    """TIME_WAITs of our services."""
    connected: int
    """TIME_WAITs of connections we opened."""
    fin_wait2: int
    max_tw_buckets: int | None
    overflowed: int | None
    """TCPTimeWaitOverflow: closed without TIME_WAIT, the limit being reached, since boot."""


class TimeWait:
    """Judges censuses as they come; each stands alone. `held`: who has the services is told."""

    name: Final = "time_wait"

    def __init__(self, *, held: bool = False) -> None:
        self._held = held

    def look(self, census: Census) -> tuple[tuple[TimeWaitFinding, ...], tuple[TimeWaitTotal, ...]]:
        """Return who owns how many, most first, and the namespaces."""
        rows = census.ports
        rows = rows[(rows["time_wait"] > 0) | (rows["fin_wait2"] > 0)]
        totals = {total.netns: total for total in _totals(census)}
        order = np.argsort(-rows["time_wait"].astype(np.int64), kind="stable")[:FINDINGS_MAX]
        servers = _Servers(census) if self._held else None
        found = tuple(_finding(rows[i], totals[int(rows["netns"][i])], servers) for i in order)
        return found, tuple(totals.values())


class _Servers:
    def __init__(self, census: Census) -> None:
        self._holders = Holders(census)
        self._listening = in_state(census.sockets, TcpState.LISTEN)

    def of(self, row: npt.NDArray[np.void]) -> tuple[tuple[Holder, ...], int]:
        listening = self._listening
        here = (listening["netns"] == row["netns"]) & (listening["lport"] == row["lport"])
        return self._holders.of_any(listening["ino"][here])


def _finding(
    row: npt.NDArray[np.void], total: TimeWaitTotal, servers: _Servers | None
) -> TimeWaitFinding:
    served, family = bool(row["inbound"]), int(row["family"])
    all_of_it = total.served + total.connected
    holders, holder_count = servers.of(row) if served and servers else ((), 0)
    return TimeWaitFinding(
        severity=Severity.OK,
        advice=SERVED if served else CONNECTED,
        netns=total.netns,
        lport=int(row["lport"]) if served else None,
        holders=holders,
        holder_count=holder_count,
        laddr=None if served else text_of(row["laddr"], family),
        raddr=None if served else text_of(row["raddr"], family),
        rport=None if served else int(row["rport"]),
        in_use=int(row["in_use"]),
        time_wait=int(row["time_wait"]),
        fin_wait2=int(row["fin_wait2"]),
        remaining=tuple(row["remaining"].tolist()),
        share=int(row["time_wait"]) / all_of_it if all_of_it else 0.0,
        entered_per_s=float(row["remaining"][-1]) / REMAINING_STEP_S,
    )


def _totals(census: Census) -> list[TimeWaitTotal]:
    rows = census.ports
    served = rows["inbound"] != 0
    totals = []
    for netns in sorted({*np.unique(rows["netns"]).tolist(), *census.namespaces}):
        here = rows["netns"] == netns
        totals.append(
            _total(
                census,
                netns,
                int(rows["time_wait"][here & served].sum()),
                int(rows["time_wait"][here & ~served].sum()),
                int(rows["fin_wait2"][here].sum()),
            )
        )
    return totals


def _total(
    census: Census, netns: int, served: int, connected: int, fin_wait2: int
) -> TimeWaitTotal:
    facts = census.namespaces.get(netns)
    limit = facts.max_tw_buckets if facts else None
    full = limit is not None and served + connected + fin_wait2 >= OVERFLOW_SHARE * limit
    return TimeWaitTotal(
        severity=Severity.WARNING if full else Severity.OK,
        why=_why(served, connected, limit, full=full),
        advice=_ABOUT_LIMIT if full else (SERVED if served > connected else CONNECTED),
        netns=netns,
        served=served,
        connected=connected,
        fin_wait2=fin_wait2,
        max_tw_buckets=limit,
        overflowed=facts.tcp_ext.get("TCPTimeWaitOverflow") if facts else None,
    )


_ABOUT_LIMIT: Final = (
    "Raise net.ipv4.tcp_max_tw_buckets: beyond it connections end without TIME_WAIT, "
    "and late segments may hit a new connection."
)


def _why(served: int, connected: int, limit: int | None, *, full: bool) -> str:
    if full:
        return f"tcp_max_tw_buckets ({limit:,}) is reached, or nearly."
    if not served + connected:
        return "Nothing is in TIME_WAIT: the peers close first, or nobody does."
    who = "our services" if served > connected else "connections we opened"
    share = 100 * max(served, connected) / (served + connected)
    return f"{share:.0f} % belong to {who}."
