# SPDX-License-Identifier: Apache-2.0
"""Join late reports to the closes they belong to: a RST of ours, SIGPIPE.

A record leaves the kernel when its socket reaches CLOSE; most RSTs that belong to a close
are sent after that. The kernel side marks a record that a RST can still follow
CONN_MAY_FOLLOW, and sends a RECORD_RESET with the same cookie within microseconds if
the RST comes: it belongs to the cookie's last close before it. A RECORD_SIGPIPE comes when
the application sends again, soon or never: what is not there in time is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from tracer.columns import taken, whole
from tracer.tcp import ConnFlag, RecordType
from tracer.waiting import Waiting

if TYPE_CHECKING:
    from tracer.columns import Index, Mask
    from tracer.wire import Records

HOLD_NS: Final = 50_000_000  # longer than a process is kept from its RST, too short to notice

MAY_FOLLOW: Final = int(ConnFlag.MAY_FOLLOW)
CLOSE, RESET, SIGPIPE = map(int, (RecordType.CLOSE, RecordType.RESET, RecordType.SIGPIPE))
AMENDED_FIELDS: Final = ("rst_sent_ns", "rst_reason", "rst_sent_state")


class Amender:
    """Hold back the few records that a report may still amend; pass all others through.

    Close and report may lie in the rings of two CPUs, and come in either order: each
    waits for HOLD_NS of batch time, and for one more look at all rings, however late
    that is. Batches of one look bear the same time.
    """

    def __init__(self) -> None:
        self._held = Waiting()
        self._early = Waiting()
        self.unmatched = 0
        """Reports of a RST whose close did not come while they waited for it."""
        self._first_ns: int | None = None

    def feed(self, records: Records, mono_ns: int) -> Records:
        """Return the closes that are final now. The common case is one look at two fields."""
        if self._first_ns is None:
            self._first_ns = _first_close_ns(records)
        is_report = (records["type"] == RESET) | (records["type"] == SIGPIPE)
        may_follow = ((records["flags"] & MAY_FOLLOW) != 0) & ~is_report
        odd = may_follow | is_report
        if not self.holding and not odd.any():
            return records
        self._held.add(records, may_follow, mono_ns)
        self._early.add(records, is_report, mono_ns)
        final = self._held.release(self._amended() | ~_recent(self._held, mono_ns))
        alone = self._early.release(~_recent(self._early, mono_ns))
        self.unmatched += self._late(alone)
        return _joined(records, ~odd, final)

    @property
    def holding(self) -> bool:
        """Whether anything waits for time to pass."""
        return bool(len(self._held) or len(self._early))

    def flush(self) -> Records:
        """Return what is still held: no more batches will come.

        Reports that still wait are not unmatched: closes are not followed any more in the end,
        their RSTs are.
        """
        self._early.release_all()
        return self._held.release_all()

    # Of before the first close: RSTs are followed a little earlier than closes.
    def _late(self, alone: Records) -> int:
        if self._first_ns is None:
            return 0
        late = (alone["type"] == RESET) & (alone["rst_sent_ns"] > self._first_ns)
        return int(np.count_nonzero(late))

    # Say which closes have their report now. A report that found its close has no more to say.
    def _amended(self) -> Mask:
        amended = np.zeros(len(self._held), np.bool_)
        if not len(self._early):
            return amended
        targets, found = _match(self._held, self._early)
        reports = self._early.release(found)[::-1]  # the first RST of a socket wins
        targets = targets[found][::-1]
        waiting, places = self._held.records, self._held.places[targets]
        resets = reports["type"] == RESET
        for name in AMENDED_FIELDS:
            waiting[name][places[resets]] = reports[name][resets]
        for name in ("rst_flags", "flags"):
            np.bitwise_or.at(waiting[name], places, reports[name])
        amended[targets] = True
        return amended


def _first_close_ns(records: Records) -> int | None:
    closed_ns = records["closed_ns"][records["type"] == CLOSE]
    return int(closed_ns.min()) if len(closed_ns) else None


def _recent(waiting: Waiting, mono_ns: int) -> Mask:
    # May something still come for them in a batch of that time?
    recent: Mask = waiting.closed_ns > mono_ns - HOLD_NS
    recent |= waiting.since_ns == mono_ns
    return recent


def _joined(records: Records, plain: Mask, final: Records) -> Records:
    if not len(final):
        return taken(records, plain)
    parts = (whole(records)[plain], whole(final))
    joined: Records = np.concatenate(parts).view(records.dtype)
    return joined


# Position in `waiting` for each report, and whether it is really there.
def _match(waiting: Waiting, reports: Waiting) -> tuple[Index, Mask]:
    among = _with_cookie_of(waiting, reports)
    if not len(among):
        return np.zeros(len(reports), np.intp), np.zeros(len(reports), np.bool_)
    order = among[np.lexsort((waiting.closed_ns[among], waiting.cookies[among]))]
    cookies, closed_ns = waiting.cookies[order], waiting.closed_ns[order]
    last = np.searchsorted(cookies, reports.cookies, side="right") - 1
    targets = np.maximum(last, 0)
    # A socket may be connected and closed again: step back to the close that is meant.
    while True:
        same = cookies[targets] == reports.cookies
        later = same & (closed_ns[targets] > reports.closed_ns)
        earlier = later & (targets > 0)
        if not earlier.any():
            return order[targets], same & ~later
        targets = targets - earlier


# Few of those that wait are meant: only these are sorted.
def _with_cookie_of(waiting: Waiting, reports: Waiting) -> Index:
    known = np.sort(reports.cookies)
    nearest = np.minimum(np.searchsorted(known, waiting.cookies), len(known) - 1)
    return np.flatnonzero(known[nearest] == waiting.cookies)
