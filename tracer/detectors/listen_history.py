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
    peak: int
    """Of the accept queue, at all looks."""


class ListenHistory:
    """Joins looks by socket cookie, namespaces by inode number; forgets what is gone."""

    def __init__(self) -> None:
        self._past: dict[int, Past] = {}
        self._counters: dict[int, Mapping[str, int]] = {}
        self._before: dict[int, tuple[int, int]] = {}

    def look(self, census: Census, listeners: Rows) -> None:
        """Take a look in."""
        past: dict[int, Past] = {}
        columns = (listeners[name].tolist() for name in ("cookie", "drops", "accept_queue"))
        for cookie, drops, queue in zip(*columns, strict=True):
            if len(past) >= LISTENERS_MAX:
                break
            seen = self._past.get(cookie) or Past(census.mono_ns, drops, queue)
            past[cookie] = Past(seen.since_ns, seen.drops, max(seen.peak, queue))
        self._past = past
        here = census.namespaces
        self._counters = {
            netns: self._counters.get(netns, facts.tcp_ext) for netns, facts in here.items()
        }

    def of(self, cookie: int) -> Past | None:
        """Return what is remembered of a listener."""
        return self._past.get(cookie)

    def counted(self, netns: int, name: str, now: Mapping[str, int]) -> int | None:
        """Return by how much a counter of a namespace grew since the first look."""
        then = self._counters.get(netns, {})
        return now[name] - then[name] if name in now and name in then else None
