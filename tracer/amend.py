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

HOLD_NS: Final = 20_000_000  # far longer than the kernel needs, too short for a person to notice

MAY_FOLLOW: Final = int(ConnFlag.RESET_MAY_FOLLOW)
AMENDED_FIELDS: Final = ("rst_sent_ns", "rst_reason", "rst_sent_state")


class Amender:
    """Hold back the few records that a RST may still amend; pass all others through.

    Close and report may lie in the rings of two CPUs, and come in either order. At
    most the records of HOLD_NS of batch time are held, or of one batch.
    """

    def __init__(self) -> None:
        self._held: Records = np.empty(0, dtype=CLOSE_DTYPE)
        self._early: Records = np.empty(0, dtype=CLOSE_DTYPE)
        self.unmatched = 0

    def feed(self, records: Records, mono_ns: int) -> Records:
        """Return the closes that are final now. The common case is one look at two fields."""
        odd = _needs_care(records)
        if not len(self._held) and not len(self._early) and not odd.any():
            return records
        apart, plain = records[odd], records[~odd]
        is_reset = apart["type"] == RecordType.RESET
        waiting = np.concatenate((self._held, apart[~is_reset]))
        resets = np.concatenate((self._early, apart[is_reset]))
        amended = self._apply(waiting, resets, mono_ns)
        final = self._release(waiting, amended, mono_ns)
        return np.concatenate((plain, final)) if len(final) else plain

    @property
    def holding(self) -> bool:
        """Whether anything waits for time to pass."""
        return bool(len(self._held) or len(self._early))

    def flush(self) -> Records:
        """Return what is still held: no more batches will come."""
        held, self._held = self._held, self._held[:0]
        self.unmatched += len(self._early)
        self._early = self._early[:0]
        return held

    def _apply(self, waiting: Records, resets: Records, mono_ns: int) -> NDArray[np.bool_]:
        amended = np.zeros(len(waiting), dtype=np.bool_)
        if not len(resets):
            return amended
        targets, found = _match(waiting, resets)
        self._keep_early(resets[~found], mono_ns)
        targets, resets = (
            targets[found][::-1],
            resets[found][::-1],
        )  # the first RST of a socket wins
        for name in AMENDED_FIELDS:
            waiting[name][targets] = resets[name]
        np.bitwise_or.at(waiting["rst_flags"], targets, resets["rst_flags"])
        amended[targets] = True
        return amended

    def _keep_early(self, resets: Records, mono_ns: int) -> None:
        young = _young(resets, mono_ns)
        self._early = resets[young]
        self.unmatched += int(np.count_nonzero(~young))

    def _release(self, waiting: Records, amended: NDArray[np.bool_], mono_ns: int) -> Records:
        hold = ((waiting["flags"] & MAY_FOLLOW) != 0) & ~amended & _young(waiting, mono_ns)
        self._held = waiting[hold]
        final: Records = waiting[~hold]
        return final


# Younger than HOLD_NS in batch time: what belongs to it may still come.
def _young(records: Records, mono_ns: int) -> NDArray[np.bool_]:
    young: NDArray[np.bool_] = records["closed_ns"].astype(np.int64) + HOLD_NS > mono_ns
    return young


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
