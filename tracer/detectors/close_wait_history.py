# SPDX-License-Identifier: Apache-2.0
"""What several looks at CLOSE_WAIT teach that one cannot: who came, who left, and when.

Bounded: one row per socket of the last census, and a few numbers per group and look.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import numpy.typing as npt

    from tracer.detectors.rows import Mask, Numbers

    Cookies = npt.NDArray[np.uint64]

LOOKS_MAX: Final = 60
GROUPS_MAX: Final = 1_000  # groups followed at once; beyond it the newest have no trend
NS_PER_MS: Final = 1_000_000
NS_PER_S: Final = 1_000_000_000
YOUNG: Final = -1
"""The group of a socket that is not old enough to be in one."""


class When(NamedTuple):
    """A look takes a while, and a socket may have come at any time in it."""

    began_ns: int
    ended_ns: int


class Point(NamedTuple):
    """A group at one look: how many there are, and how many left since the look before."""

    mono_ns: int
    there: int
    left: int


@dataclass(frozen=True, slots=True)
class Trend:
    """A group over all looks that are remembered."""

    looks: int
    span_s: float
    entered: int
    left: int
    emptied: Point | None
    """The look at which most left at once; `there` is what there was before."""

    @property
    def per_minute(self) -> float:
        """Net growth."""
        return 60 * (self.entered - self.left) / self.span_s if self.span_s else 0.0


@dataclass(frozen=True, slots=True)
class Seen:
    """When sockets were first seen in CLOSE_WAIT, ms ago; shapes (sockets,)."""

    at_least_ms: Numbers
    """0 for one never seen before."""
    at_most_ms: Numbers
    """-1 where it was there at the first look."""
    before: Mask
    """Whether it was seen at an earlier look."""


class CloseWaitHistory:
    """Joins looks by socket cookie. Sockets without one (0) are new every time."""

    def __init__(self) -> None:
        self._cookies: Cookies = np.zeros(0, np.uint64)
        self._first_ns = np.zeros(0, np.int64)
        self._not_before_ns = np.zeros(0, np.int64)
        self._groups = np.zeros(0, np.int64)
        self._keys: Sequence[Hashable] = ()
        self._looked_ns: deque[int] = deque(maxlen=LOOKS_MAX)
        self._series: dict[Hashable, deque[Point]] = {}

    def seen(self, when: When, cookies: Cookies) -> Seen:
        """Return since when each socket is known to be in CLOSE_WAIT."""
        first_ns, not_before_ns, before = self._times(when, cookies)
        at_least_ms = np.maximum(when.began_ns - first_ns, 0) // NS_PER_MS
        at_most_ms = np.where(not_before_ns < 0, -1, (when.ended_ns - not_before_ns) // NS_PER_MS)
        return Seen(at_least_ms, at_most_ms, before)

    def _times(self, when: When, cookies: Cookies) -> tuple[Numbers, Numbers, Mask]:
        place, before = _find(self._cookies, cookies)
        newest = self._looked_ns[-1] if self._looked_ns else -1
        if not len(self._cookies):
            fresh = np.full(len(cookies), when.ended_ns, np.int64)
            return fresh, np.full(len(cookies), newest, np.int64), before
        first_ns = np.where(before, self._first_ns[place], when.ended_ns)
        return first_ns, np.where(before, self._not_before_ns[place], newest), before

    def remember(
        self, when: When, cookies: Cookies, groups: Numbers, keys: Sequence[Hashable]
    ) -> None:
        """Take a look in: the group of each socket is an index into `keys`, or YOUNG."""
        first_ns, not_before_ns, _ = self._times(when, cookies)
        left = self._left(cookies)
        counts = np.bincount(groups[groups != YOUNG], minlength=len(keys))
        present = dict(zip(keys, counts.tolist(), strict=True))
        for key in {**dict.fromkeys(self._series), **present}:
            self._append(key, Point(when.began_ns, present.get(key, 0), left.get(key, 0)))
        order = np.argsort(cookies)
        self._cookies, self._groups, self._keys = cookies[order], groups[order], keys
        self._first_ns, self._not_before_ns = first_ns[order], not_before_ns[order]
        self._looked_ns.append(when.began_ns)

    # Only those that had grown old count: young ones come and go in every healthy service.
    def _left(self, cookies: Cookies) -> dict[Hashable, int]:
        _, still = _find(np.sort(cookies), self._cookies)
        gone = self._groups[~still & (self._groups != YOUNG) & (self._cookies != 0)]
        counts = np.bincount(gone, minlength=len(self._keys)).tolist()
        return {key: count for key, count in zip(self._keys, counts, strict=True) if count}

    def _append(self, key: Hashable, point: Point) -> None:
        series = self._series.get(key)
        if series is None:
            if len(self._series) >= GROUPS_MAX:
                return
            series = self._series[key] = deque(maxlen=LOOKS_MAX)
            series.extend(Point(at, 0, 0) for at in self._looked_ns)
        series.append(point)
        if not any(point.there or point.left for point in series):
            del self._series[key]

    def trend(self, key: Hashable) -> Trend | None:
        """Return how a group went, None after a single look."""
        series = self._series.get(key)
        if series is None or len(series) < 2:
            return None
        points = list(series)
        left = sum(point.left for point in points[1:])
        drops = [
            Point(now.mono_ns, before.there, now.left)
            for before, now in itertools.pairwise(points)
            if now.left
        ]
        return Trend(
            looks=len(points),
            span_s=(points[-1].mono_ns - points[0].mono_ns) / NS_PER_S,
            entered=points[-1].there - points[0].there + left,
            left=left,
            emptied=max(drops, key=lambda drop: drop.left, default=None),
        )


def _find(ordered: Cookies, wanted: Cookies) -> tuple[Numbers, Mask]:
    if not len(ordered):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.bool_)
    place = np.searchsorted(ordered, wanted).clip(max=len(ordered) - 1)
    return place.astype(np.int64), (ordered[place] == wanted) & (wanted != 0)
