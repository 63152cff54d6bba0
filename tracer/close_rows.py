# SPDX-License-Identifier: Apache-2.0
"""Records and verdicts as rows of plain integers, for what goes through them one by one.

Reading a field of a numpy record makes a numpy scalar, slow to make and slow in every
use; one unpacking gives all fields of a record as what Python works with.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from tracer.verdict import VERDICT_DTYPE, Verdicts
from tracer.wire import CLOSE_DTYPE, Records

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np


class Row(NamedTuple):
    """What a close shows of its conn_record, in the record's order; a__b is field b of struct a."""

    family: int
    old_state: int
    flags: int
    states_seen: int
    sk_flags: int
    rst_flags: int
    rst_reason: int
    probes_out: int
    retransmits: int
    dup_fin: int
    ack_pingpong: int
    ack_quick: int
    ack_ato_jiffies: int
    sk_err: int
    lport: int
    rport: int
    user_timeout_ms: int
    unread: int
    at_halfway__segs_in: int
    at_fin_sent__segs_in: int
    at_fin_sent__segs_out: int
    at_fin_sent__unsent: int
    at_close__segs_out: int
    at_close__unsent: int
    at_close__unacked: int
    closed_ns: int
    opened_ns: int
    established_ns: int
    fin_received_ns: int
    fin_sent_ns: int
    fin_acked_ns: int
    ack_sent_ns: int
    rst_sent_ns: int
    rst_received_ns: int
    closer__tgid: int
    closer__uid: int
    closer__comm: bytes
    opener__tgid: int
    opener__uid: int
    opener__flags: int
    opener__comm: bytes
    saddr: bytes
    daddr: bytes
    bytes_sent: int
    bytes_received: int
    cgroup_id: int
    netns: int
    fin_clock_10us: int
    ack_flags: int
    err_told: int


class Verdict(NamedTuple):
    """One element of VERDICT_DTYPE, whole."""

    kind: int
    handshake: int
    fin_ack: int
    evidence: int
    cause: int
    time_wait: int
    data_lost: int
    ack_fate: int
    how: int
    signal_or_code: int
    rst_sent: int
    closer_known: int
    reason: int


def _member(dtype: np.dtype[np.void], path: str) -> tuple[np.dtype[np.generic], int]:
    # The type of a field, and its offset in bytes.
    start = 0
    for name in path.split("__"):
        assert dtype.fields is not None
        dtype, offset = dtype.fields[name][:2]
        start += offset
    return dtype, start


_CODES: Final = {"|u1": "B", "<u2": "H", "<u4": "I", "<u8": "Q"}


def _unpacker(dtype: np.dtype[np.void], paths: Iterable[str]) -> Struct:
    # An array of bytes comes as bytes, and what is not asked for is skipped.
    layout, end = "<", 0
    for path in paths:
        member, start = _member(dtype, path)
        code = f"{member.itemsize}s" if member.subdtype else _CODES[member.str]
        layout += f"{start - end}x{code}"
        end = start + member.itemsize
    return Struct(f"{layout}{dtype.itemsize - end}x")


_ROW: Final = _unpacker(CLOSE_DTYPE, Row._fields)
_VERDICT: Final = _unpacker(VERDICT_DTYPE, Verdict._fields)


def rows_of(records: Records, verdicts: Verdicts) -> Iterator[tuple[Row, Verdict]]:
    """Yield every record with its verdict. Raises ValueError when one has no other."""
    return zip(
        map(Row._make, _ROW.iter_unpack(records.tobytes())),
        map(Verdict._make, _VERDICT.iter_unpack(verdicts.tobytes())),
        strict=True,
    )
