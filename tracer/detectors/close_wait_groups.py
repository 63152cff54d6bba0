# SPDX-License-Identifier: Apache-2.0
"""Sockets in CLOSE_WAIT as groups: the same holders, the same service or destination.

All sockets at once, by columns; what is returned of one group is small.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from tracer.detectors.close_wait_verdict import Evidence, Use
from tracer.detectors.holders import Holder, Holders
from tracer.detectors.listeners import ALIVE, holding_inos, inbound
from tracer.detectors.rows import columns_of, halves, largest, number_groups, sums, text_of
from tracer.tcp import TcpState

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    import numpy.typing as npt

    from tracer.census import Census, Rows
    from tracer.detectors.close_wait_history import Seen, Trend
    from tracer.detectors.rows import Mask, Numbers

    Row = npt.NDArray[np.void]

SENT_LATELY_MS: Final = 60_000
JIFFIES_MS: Final = 20  # two, at the coarsest CONFIG_HZ: lsndtime is counted in them
MINUTE_MS: Final = 60_000
NS_PER_MS: Final = 1_000_000
FAREWELL_BYTES: Final = 129
"""The end, and up to 128 bytes before it that say goodbye rather than answer: TLS close_notify,
HTTP/2 GOAWAY. What a service did not read is a request."""
PEERS_MAX: Final = 5
GROUPED: Final = (
    "cookie",
    "ino",
    "laddr",
    "raddr",
    "netns",
    "unread",
    "lport",
    "rport",
    "family",
    "flags",
)
TELLING: Final = ("close_wait_ns", "age_received_ms", "age_sent_ms", "unsent", "unacked")
"""Columns of SOCKETS: what groups are made of, and what tells sockets apart."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A remote address, and how many sockets of a group lead there."""

    addr: str
    count: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a group's connections lead.

    `lport` is the service others connected to; None when we connected, to `raddr` and `rport`.
    """

    netns: int
    lport: int | None
    raddr: str | None
    rport: int | None
    peers: tuple[Peer, ...]
    """The most frequent remote addresses."""
    peer_count: int


@dataclass(frozen=True, slots=True)
class Sockets:
    """Columns beside SOCKETS, shapes (sockets,): what follows from a row and from its past."""

    use: npt.NDArray[np.uint8]
    """Use."""
    inbound: Mask
    age_ms: Numbers
    """In CLOSE_WAIT for at least so long; for so long, where `at_most_ms` is the same."""
    at_most_ms: Numbers
    """-1: unknown."""


def tell_apart(census: Census, sockets: Rows, seen: Seen) -> Sockets:
    """Return what each socket is by itself."""
    heard_ms = np.maximum(sockets["age_received_ms"], 0)
    known = sockets["close_wait_ns"] > 0
    exact_ms = _since_ms(census.mono_ns, sockets["close_wait_ns"])
    age_ms = np.where(known, exact_ms, np.maximum(heard_ms, seen.at_least_ms))
    waiting = (sockets["unsent"] > 0) | (sockets["unacked"] > 0)
    sent_ms = sockets["age_sent_ms"]
    sent_since = seen.before & (sent_ms >= 0)
    sent_since &= (sent_ms + JIFFIES_MS < seen.at_least_ms) & (sent_ms < SENT_LATELY_MS)
    use = np.full(len(sockets), Use.HELD, np.uint8)
    use[waiting | sent_since] = Use.SENDING
    use[(sockets["flags"] & ALIVE) == 0] = Use.QUEUED
    at_most_ms = np.where(known, exact_ms, seen.at_most_ms)
    return Sockets(use, inbound(census, sockets), age_ms, at_most_ms)


# One that began while the census was taken is of no age yet.
def _since_ms(now_ns: int, then_ns: npt.NDArray[np.uint64]) -> Numbers:
    since: Numbers = np.maximum(now_ns - then_ns.astype(np.int64), 0) // NS_PER_MS
    return since


class Groups:
    """The groups among the sockets of a census that are in CLOSE_WAIT for `older_ms`."""

    def __init__(self, census: Census, sockets: Rows, told: Sockets, older_ms: int) -> None:
        self.old: Mask = told.age_ms >= older_ms
        self._rows, self._older_ms = columns_of(sockets, self.old, GROUPED), older_ms
        self._use, self._inbound = told.use[self.old], told.inbound[self.old]
        self._age_ms, self._at_most_ms = told.age_ms[self.old], told.at_most_ms[self.old]
        self.holding = Holders(census)
        self._inos = holding_inos(census, self._rows)
        self.ids, self._first = self._number()
        self.counts = np.bincount(self.ids, minlength=len(self._first))
        self._order = np.argsort(self.ids, kind="stable")
        self._ends = np.cumsum(self.counts)
        self._sum_up()

    def _number(self) -> tuple[Numbers, Numbers]:
        rows, served = self._rows, self._inbound
        high, low = halves(rows["raddr"])
        return number_groups(
            self._use,
            served,
            rows["netns"],
            self.holding.sets(self._inos),
            np.where(served, rows["lport"], rows["rport"]),
            np.where(served, 0, high.astype(np.uint64)),
            np.where(served, 0, low.astype(np.uint64)),
        )

    def _sum_up(self) -> None:
        groups, unread = len(self._first), self._rows["unread"]
        self._eof_read = sums(self.ids, groups, unread == 0)
        farewell = (unread > 0) & (unread <= np.where(self._inbound, 1, FAREWELL_BYTES))
        self._eof_pending = sums(self.ids, groups, farewell)
        # Of `unread` one is the end itself.
        self._unread_bytes = sums(self.ids, groups, unread - np.minimum(unread, 1))
        self._oldest_ms = largest(self.ids, groups, self._age_ms)
        far = np.iinfo(np.int64).max
        self._youngest_ms = far - largest(self.ids, groups, far - self._age_ms)
        lately = self._age_ms < self._older_ms + MINUTE_MS
        self._last_minute = sums(self.ids, groups, lately)

    def largest_first(self, most: int) -> list[int]:
        """Return the numbers of the groups with most sockets."""
        numbers: list[int] = np.argsort(-self.counts, kind="stable")[:most].tolist()
        return numbers

    def key(self, group: int) -> Hashable:
        """Return what names the group in later censuses, too."""
        row, place = self._rows[self._first[group]], self.place(group, peers=False)
        holders, _ = self.holders(group)
        who = (holders[0].pid, holders[0].start_ns) if holders else None
        use = int(self._use[self._first[group]])
        return (use, int(row["netns"]), who, place.lport, place.raddr, place.rport)

    def holders(self, group: int) -> tuple[tuple[Holder, ...], int]:
        """Return the first few who hold the group's sockets, and how many do."""
        return self.holding.of(int(self._inos[self._first[group]]))

    def _members(self, group: int) -> Numbers:
        end = self._ends[group]
        return self._order[end - self.counts[group] : end]

    def oldest(self, group: int, most: int) -> Iterator[tuple[Row, int, int, Use]]:
        """Yield rows of a group, the oldest first: with age, its upper bound (-1), and use."""
        members = self._members(group)
        for i in members[np.argsort(-self._age_ms[members], kind="stable")[:most]].tolist():
            bounds = int(self._age_ms[i]), int(self._at_most_ms[i])
            yield (self._rows[i], *bounds, Use(int(self._use[i])))

    def newest(self, group: int, most: int) -> tuple[int, ...]:
        """Return the cookies of a group's sockets, the newest first."""
        members = self._members(group)
        youngest = members[np.argsort(self._age_ms[members], kind="stable")[:most]]
        return tuple(self._rows["cookie"][youngest].tolist())

    def place(self, group: int, *, peers: bool = True) -> Place:
        """Return where the group's connections lead."""
        first = self._first[group]
        row, served = self._rows[first], bool(self._inbound[first])
        remote = text_of(row["raddr"], int(row["family"]))
        found, count = self._peers(group) if peers else ((), 0)
        return Place(
            netns=int(row["netns"]),
            lport=int(row["lport"]) if served else None,
            raddr=None if served else remote,
            rport=None if served else int(row["rport"]),
            peers=found,
            peer_count=count,
        )

    def _peers(self, group: int) -> tuple[tuple[Peer, ...], int]:
        members = self._members(group)
        remote, family = self._rows["raddr"][members], self._rows["family"][members]
        ids, first = number_groups(*halves(remote))
        counts = np.bincount(ids)
        top = np.argsort(-counts, kind="stable")[:PEERS_MAX]
        peers = tuple(
            Peer(text_of(remote[first[i]], int(family[first[i]])), int(counts[i])) for i in top
        )
        return peers, len(first)

    def evidence(self, group: int, trend: Trend | None) -> Evidence:
        """Return what is known of a group."""
        first, count = self._first[group], int(self.counts[group])
        eof_read, eof_pending = int(self._eof_read[group]), int(self._eof_pending[group])
        return Evidence(
            use=Use(int(self._use[first])),
            inbound=bool(self._inbound[first]),
            count=count,
            eof_read=eof_read,
            eof_pending=eof_pending,
            data_pending=count - eof_read - eof_pending,
            unread_bytes=int(self._unread_bytes[group]),
            oldest_ms=int(self._oldest_ms[group]),
            oldest_at_most_ms=self._oldest_at_most(group),
            youngest_ms=int(self._youngest_ms[group]),
            limit_ms=self._older_ms,
            last_minute=int(self._last_minute[group]),
            trend=trend,
        )

    def _oldest_at_most(self, group: int) -> int | None:
        bounds = self._at_most_ms[self._members(group)]
        return None if (bounds < 0).any() else int(bounds.max())


def close_waits(census: Census) -> Rows:
    """Return the rows of the sockets in CLOSE_WAIT, without what is not asked of them."""
    chosen = census.sockets["state"] == TcpState.CLOSE_WAIT
    return columns_of(census.sockets, chosen, (*GROUPED, *TELLING))
