# SPDX-License-Identifier: Apache-2.0
"""Join late RST reports to the closes they belong to.

A record leaves the kernel when its socket reaches CLOSE; most RSTs that belong to a close
are sent after that. The kernel side marks a record that a RST can still follow
CONN_RESET_MAY_FOLLOW, and sends a RECORD_RESET with the same cookie within microseconds if
the RST comes: it belongs to the cookie's last close before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from tracer.tcp import ConnFlag, RecordType
from tracer.wire import CLOSE_DTYPE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tracer.wire import Records

HOLD_NS: Final = 50_000_000  # longer than a process is kept from its RST, too short to notice

MAY_FOLLOW: Final = int(ConnFlag.RESET_MAY_FOLLOW)
AMENDED_FIELDS: Final = ("rst_sent_ns", "rst_reason", "rst_sent_state")


class Amender:
    """Hold back the few records that a RST may still amend; pass all others through.

    Close and report may lie in the rings of two CPUs, and come in either order: each
    waits for HOLD_NS of batch time, and for one more look at all rings, however late
    that is. Batches of one look bear the same time.
    """

    def __init__(self) -> None:
        self._held = _Waiting()
        self._early = _Waiting()
        self.unmatched = 0

    def feed(self, records: Records, mono_ns: int) -> Records:
        """Return the closes that are final now. The common case is one look at two fields."""
        odd = _needs_care(records)
        if not self.holding and not odd.any():
            return records
        is_reset = records["type"] == RecordType.RESET
        if is_reset.any() or self._early.waits:
            final = self._match_up(records[odd], mono_ns)
        else:
            final = self._held.release_old(mono_ns)
            self._held.add(records[odd], mono_ns)
        plain = records[~odd] if odd.any() else records
        return np.concatenate((plain, *final)) if final else plain

    @property
    def holding(self) -> bool:
        """Whether anything waits for time to pass."""
        return self._held.waits or self._early.waits

    def flush(self) -> Records:
        """Return what is still held: no more batches will come."""
        self.unmatched += len(self._early.release_all())
        return self._held.release_all()

    # Reports have come, or wait: each close is looked at.
    def _match_up(self, apart: Records, mono_ns: int) -> list[Records]:
        is_reset = apart["type"] == RecordType.RESET
        self._held.add(apart[~is_reset], mono_ns)
        self._early.add(apart[is_reset], mono_ns)
        amended = self._apply()
        self.unmatched += len(self._early.release(~self._early.recent(mono_ns)))
        may_follow = (self._held.records["flags"] & MAY_FOLLOW) != 0
        return [self._held.release(~may_follow | amended | ~self._held.recent(mono_ns))]

    def _apply(self) -> NDArray[np.bool_]:
        waiting, resets = self._held.records, self._early.records
        amended = np.zeros(len(waiting), dtype=np.bool_)
        if not len(resets):
            return amended
        targets, found = _match(waiting, resets)
        resets = self._early.release(found)[::-1]  # the first RST of a socket wins
        targets = targets[found][::-1]
        for name in AMENDED_FIELDS:
            waiting[name][targets] = resets[name]
        np.bitwise_or.at(waiting["rst_flags"], targets, resets["rst_flags"])
        amended[targets] = True
        return amended


class _Waiting:
    """Records that wait, and since when: in the parts in which they came.

    A part is copied again only when single records must be found in it.
    """

    def __init__(self) -> None:
        self._parts: list[tuple[Records, NDArray[np.int64]]] = []

    @property
    def waits(self) -> bool:
        """Whether any does."""
        return bool(self._parts)

    def add(self, records: Records, mono_ns: int) -> None:
        """Take these, seen in a batch of that time."""
        if len(records):
            self._parts.append((records, np.full(len(records), mono_ns, dtype=np.int64)))

    @property
    def records(self) -> Records:
        """All of them, to be found and changed."""
        return self._joined()[0]

    def _joined(self) -> tuple[Records, NDArray[np.int64]]:
        if not self._parts:
            return np.empty(0, dtype=CLOSE_DTYPE), np.empty(0, dtype=np.int64)
        if len(self._parts) > 1:
            records, since_ns = zip(*self._parts, strict=True)
            self._parts = [(np.concatenate(records), np.concatenate(since_ns))]
        return self._parts[0]

    def release_old(self, mono_ns: int) -> list[Records]:
        """Let whole parts go for which nothing may come any more in a batch of that time."""
        old = [not _recent(*part, mono_ns).any() for part in self._parts]
        released = [part[0] for part, gone in zip(self._parts, old, strict=True) if gone]
        self._parts = [part for part, gone in zip(self._parts, old, strict=True) if not gone]
        return released

    def recent(self, mono_ns: int) -> NDArray[np.bool_]:
        """Say which of them something may still come for, in a batch of that time."""
        return _recent(*self._joined(), mono_ns)

    def release(self, which: NDArray[np.bool_]) -> Records:
        """Let these go."""
        records, since_ns = self._joined()
        released: Records = records[which]
        if len(released):
            self._parts = [] if which.all() else [(records[~which], since_ns[~which])]
        return released

    def release_all(self) -> Records:
        """Let all of them go."""
        return self.release(np.ones(len(self.records), dtype=np.bool_))


def _recent(records: Records, since_ns: NDArray[np.int64], mono_ns: int) -> NDArray[np.bool_]:
    young = records["closed_ns"].astype(np.int64) + HOLD_NS > mono_ns
    recent: NDArray[np.bool_] = young | (since_ns == mono_ns)
    return recent


def _needs_care(records: Records) -> NDArray[np.bool_]:
    odd: NDArray[np.bool_] = (records["flags"] & MAY_FOLLOW) != 0
    odd |= records["type"] != RecordType.CLOSE
    return odd


# Position in `waiting` for each reset, and whether it is really there.
def _match(waiting: Records, resets: Records) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    if not len(waiting):
        return np.zeros(len(resets), dtype=np.intp), np.zeros(len(resets), dtype=np.bool_)
    order = np.lexsort((waiting["closed_ns"], waiting["cookie"]))
    cookies, closed = waiting["cookie"][order], waiting["closed_ns"][order]
    last = np.searchsorted(cookies, resets["cookie"], side="right") - 1
    targets = np.maximum(last, 0)
    # A socket may be connected and closed again: step back to the close that is meant.
    while True:
        same = cookies[targets] == resets["cookie"]
        later = same & (closed[targets] > resets["rst_sent_ns"])
        earlier = later & (targets > 0)
        if not earlier.any():
            return order[targets], same & ~later
        targets = targets - earlier
