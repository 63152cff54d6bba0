# SPDX-License-Identifier: Apache-2.0
"""bpf/records.h as numpy dtypes, field by field in C order.

The layout rules are C's (`align=True`); the byte order is the little endian of
every machine the programs run on, so that a recording reads anywhere.
tests/unit/test_wire.py compiles records.h and compares every offset and size.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tracer.errors import WireError

Records: TypeAlias = npt.NDArray[np.void]
"""An array of CLOSE_DTYPE."""

WIRE_VERSION = 2
COMM_LEN = 16

_U8, _U16, _U32, _U64, _INT = "u1", "<u2", "<u4", "<u8", "<i4"

ACTOR_DTYPE = np.dtype(
    [
        ("tgid", _U32),
        ("uid", _U32),
        ("exit_code", _U16),
        ("flags", _U8),
        ("file_ref", _U8),
        ("comm", _U8, (COMM_LEN,)),
    ],
    align=True,
)
"""struct actor."""

COUNTS_DTYPE = np.dtype(
    [
        ("segs_in", _U32),
        ("segs_out", _U32),
        ("data_segs_in", _U32),
        ("data_segs_out", _U32),
        ("total_retrans", _U32),
        ("rcv_nxt", _U32),
        ("rcv_unacked", _U32),
        ("unsent", _U32),
        ("unacked", _U32),
        ("snd_wnd", _U32),
    ],
    align=True,
)
"""struct tcp_counts."""

CLOSE_DTYPE = np.dtype(
    [
        ("type", _U8),
        ("family", _U8),
        ("state", _U8),
        ("old_state", _U8),
        ("flags", _U16),
        ("states_seen", _U16),
        ("cookie", _U64),
        ("sk_shutdown", _U8),
        ("sk_flags", _U8),
        ("tw_substate", _U8),
        ("close_actor_file_ref", _U8),
        ("rst_flags", _U8),
        ("rst_reason", _U8),
        ("rst_sent_state", _U8),
        ("rst_received_state", _U8),
        ("probes_out", _U8),
        ("retransmits", _U8),
        ("dup_fin", _U8),
        ("ack_pending", _U8),
        ("ack_pingpong", _U8),
        ("ack_quick", _U8),
        ("ack_ato_jiffies", _U16),
        ("sk_err", _U16),
        ("lport", _U16),
        ("rport", _U16),
        ("out_of_order", _U16),
        ("linger2", _INT),
        ("lingertime_jiffies", _U32),
        ("user_timeout_ms", _U32),
        ("unread", _U32),
        ("at_halfway", COUNTS_DTYPE),
        ("at_fin_sent", COUNTS_DTYPE),
        ("at_close", COUNTS_DTYPE),
        ("closed_ns", _U64),
        ("opened_ns", _U64),
        ("established_ns", _U64),
        ("fin_received_ns", _U64),
        ("fin_sent_ns", _U64),
        ("fin_acked_ns", _U64),
        ("ack_sent_ns", _U64),
        ("rst_sent_ns", _U64),
        ("rst_received_ns", _U64),
        ("closer", ACTOR_DTYPE),
        ("opener", ACTOR_DTYPE),
        ("saddr", _U8, (16,)),
        ("daddr", _U8, (16,)),
        ("bytes_sent", _U64),
        ("bytes_received", _U64),
        ("cgroup_id", _U64),
        ("netns", _U32),
        ("uid", _U32),
        ("oow_ack_time", _U32),
        ("fin_clock_10us", _U16),
        ("ack_flags", _U8),
        ("err_told", _U8),
    ],
    align=True,
)
"""struct conn_record."""

COUNTERS_DTYPE = np.dtype(
    [
        ("emitted", _U64, (2,)),
        ("ring_full", _U64),
        ("conn_map_full", _U64),
        ("unseen", _U64),
        ("second_children", _U64),
        ("unknown_sockets", _U64),
        ("gaps", _U64),
        ("taken_over", _U64),
        ("resets_amended", _U64),
        ("resets_lost", _U64),
        ("strays_lost", _U64),
        ("last_closed", _U64, (2,)),
        ("last_reset", _U64, (2,)),
    ],
    align=True,
)
"""struct counters, one per possible CPU."""

TIME_WAITS_DTYPE = np.dtype(
    [
        ("changes", _U64, (8,)),
        ("looked_at", _U64),
        ("looked_by", _U32),
        ("substate", _U32),
        ("unused", _U64, (6,)),
    ],
    align=True,
)
"""struct time_waits, one per possible CPU."""

RING_HEADER_BYTES = 8
"""struct bpf_ringbuf_hdr: u32 length with two flag bits, u32 page offset."""

RING_RECORD_DTYPE = np.dtype(
    [("length", _U32), ("page_offset", _U32), ("record", CLOSE_DTYPE)], align=True
)
"""One conn_record as it lies in the ring; its size is the stride."""

# BPF_RINGBUF_BUSY_BIT and BPF_RINGBUF_DISCARD_BIT of include/uapi/linux/bpf.h.
_RING_BUSY = 1 << 31
_RING_DISCARDED = 1 << 30


def decode_closes(data: bytes | bytearray | memoryview) -> Records:
    """Return the records in `data`, a strided view of it, oldest first.

    Discarded ring entries are left out. Raises WireError when the bytes are not
    whole records of this wire version: another stride, or a length that is not
    that of struct conn_record.
    """
    entries = _entries(data)
    length = entries["length"]
    if (length == CLOSE_DTYPE.itemsize).all():
        return entries["record"]
    discarded = (length & _RING_DISCARDED) != 0
    if ((length[~discarded]) != CLOSE_DTYPE.itemsize).any():
        raise WireError(_odd_length(length[~discarded]))
    records: Records = entries["record"][~discarded]
    return records


def encode_closes(records: Records) -> bytes:
    """Return `records` as they would lie in the ring: the inverse of decode_closes."""
    entries = np.zeros(len(records), RING_RECORD_DTYPE)
    entries["length"] = CLOSE_DTYPE.itemsize
    entries["record"] = records
    return entries.tobytes()


def _entries(data: bytes | bytearray | memoryview) -> np.ndarray[Any, np.dtype[np.void]]:
    size = memoryview(data).nbytes
    stride = RING_RECORD_DTYPE.itemsize
    if size % stride:
        raise WireError(f"{size} bytes are not whole records of {stride} bytes")
    return np.frombuffer(data, RING_RECORD_DTYPE)


def _odd_length(length: npt.NDArray[np.uint32]) -> str:
    odd = int(length[length != CLOSE_DTYPE.itemsize][0])
    if odd & _RING_BUSY:
        return "a ring entry is still being written"
    return f"a ring entry holds {odd} bytes, a record {CLOSE_DTYPE.itemsize}"
