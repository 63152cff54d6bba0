# SPDX-License-Identifier: Apache-2.0
"""What several looks at listeners teach: peaks, and what was dropped since the first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracer.census import Census, Rows

LISTENERS_MAX: Final = 65_536  # followed at once; further ones have no past
NS_PER_S: Final = 1_000_000_000
OVERFLOWS: Final = "ListenOverflows"
DROPS: Final = "ListenDrops"


@dataclass(frozen=True, slots=True)
class Past:
    """One listener since it was first looked at."""

    since_ns: int
    drops: int
    """At the first look."""
    drops_now: int
    """At the last one."""
    peak: int
    """Of the accept queue, at all looks."""


class ListenHistory:
    """Joins looks by socket cookie, namespaces by inode number; forgets what is gone."""

    grown: Mapping[int, int]
    """Drops between the last two looks, of listeners that had any."""

    def __init__(self) -> None:
        self.grown = {}
        self._complete = False
        self._past: dict[int, Past] = {}
        self._counters: dict[int, Mapping[str, int]] = {}

    def look(self, census: Census, listeners: Rows) -> None:
        """Take a look in."""
        past: dict[int, Past] = {}
        grown: dict[int, int] = {}
        columns = (
            listeners[name].tolist() for name in ("cookie", "netns", "drops", "accept_queue")
        )
        for cookie, netns, drops, queue in zip(*columns, strict=True):
            if len(past) >= LISTENERS_MAX:
                break
            seen = self._past.get(cookie)
            if growth := drops - self._drops_before(seen, netns, drops):
                grown[cookie] = growth
            seen = seen or Past(census.mono_ns, drops, drops, queue)
            past[cookie] = Past(seen.since_ns, seen.drops, drops, max(seen.peak, queue))
        self.grown = grown
        self._complete = len(listeners) <= LISTENERS_MAX and not census.truncated
        self._past = past
        here = census.namespaces
        self._counters = {
            netns: self._counters.get(netns, facts.tcp_ext) for netns, facts in here.items()
        }

    # Who was not there a look ago, where nobody was left out, is new: it began with none.
    def _drops_before(self, seen: Past | None, netns: int, drops: int) -> int:
        if seen:
            return min(seen.drops_now, drops)
        return 0 if self._complete and netns in self._counters else drops

    def of(self, cookie: int) -> Past | None:
        """Return what is remembered of a listener."""
        return self._past.get(cookie)

    def counted(self, netns: int, name: str, now: Mapping[str, int]) -> int | None:
        """Return by how much a counter of a namespace grew since the first look."""
        then = self._counters.get(netns, {})
        return now[name] - then[name] if name in now and name in then else None
