# SPDX-License-Identifier: Apache-2.0
"""Join late RST reports to the closes they belong to.

A socket that its application still holds is reported at CLOSE, before a RST that
may follow. The kernel side marks such a record CONN_RESET_MAY_FOLLOW, and sends a
RECORD_RESET with the same `cookie` and `closed_ns` within microseconds if the RST comes.
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

    At most the records of HOLD_NS of batch time are held.
    """

    def __init__(self) -> None:
        self._held: Records = np.empty(0, dtype=CLOSE_DTYPE)
        self._held_since_ns = 0
        self.unmatched = 0

    def feed(self, records: Records, mono_ns: int) -> Records:
        """Return the closes that are final now. The common case is one look at two fields."""
        if not len(self._held) and not _needs_care(records):
            return records
        closes = records[records["type"] == RecordType.CLOSE]
        resets = records[records["type"] == RecordType.RESET]
        waiting = np.concatenate((self._held, closes))
        amended = self._apply(waiting, resets)
        return self._release(waiting, amended, mono_ns)

    def flush(self) -> Records:
        """Return what is still held: no more batches will come."""
        held, self._held = self._held, self._held[:0]
        return held

    def _apply(self, waiting: Records, resets: Records) -> NDArray[np.bool_]:
        amended = np.zeros(len(waiting), dtype=np.bool_)
        if not len(resets):
            return amended
        targets, found = _match(waiting, resets)
        self.unmatched += int(np.count_nonzero(~found))
        targets, resets = (
            targets[found][::-1],
            resets[found][::-1],
        )  # the first RST of a socket wins
        for name in AMENDED_FIELDS:
            waiting[name][targets] = resets[name]
        np.bitwise_or.at(waiting["rst_flags"], targets, resets["rst_flags"])
        amended[targets] = True
        return amended

    # Everything held before this batch, and HOLD_NS older than it, has waited long enough.
    def _release(self, waiting: Records, amended: NDArray[np.bool_], mono_ns: int) -> Records:
        hold = ((waiting["flags"] & MAY_FOLLOW) != 0) & ~amended
        hold &= waiting["closed_ns"].astype(np.int64) + HOLD_NS > mono_ns
        self._held = waiting[hold]
        final: Records = waiting[~hold]
        return final


def _needs_care(records: Records) -> bool:
    odd = (records["flags"] & MAY_FOLLOW) | (records["type"] != RecordType.CLOSE)
    return bool(odd.any())


# Position in `waiting` for each reset, and whether it is really there: a socket may be connected
# and closed again, so that only the pair with the time of its CLOSE names a record.
def _match(waiting: Records, resets: Records) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    if not len(waiting):
        return np.zeros(len(resets), dtype=np.intp), np.zeros(len(resets), dtype=np.bool_)
    keys = _keys(waiting)
    order = np.argsort(keys)
    places = np.searchsorted(keys, _keys(resets), sorter=order)
    targets = order[np.minimum(places, len(waiting) - 1)]
    same_socket = waiting["cookie"][targets] == resets["cookie"]
    return targets, same_socket & (waiting["closed_ns"][targets] == resets["closed_ns"])


# One word per pair, for sorting: cookie and a multiple of closed_ns (an odd constant keeps all bits).
def _keys(records: Records) -> NDArray[np.uint64]:
    spread = records["closed_ns"] * np.uint64(0x9E3779B97F4A7C15)
    keys: NDArray[np.uint64] = records["cookie"] ^ spread
    return keys
