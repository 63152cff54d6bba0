# SPDX-License-Identifier: Apache-2.0
"""What the closes themselves come to, as metrics; tracer/metrics.py has them all."""

from __future__ import annotations

from typing import Final

from tracer.metrics_declaration import Group, Metric, Type, Values, label_of
from tracer.tcp import (
    ENDED_EARLY,
    AckFate,
    Cause,
    FinAck,
    Handshake,
    Kind,
    Stray,
    TimeWait,
    TimeWaitChange,
)

UNTOLD: Final = "unknown"
"""Cause of stray RSTs that were too many to be told apart."""


# A handshake needs two FINs, and crossing FINs make their own: what else cannot be is left out.
def _closes() -> tuple[Values, ...]:
    orderly = {
        Kind.ACTIVE: (Handshake.FOUR_WAY, Handshake.THREE_WAY, Handshake.NONE),
        Kind.PASSIVE: (Handshake.FOUR_WAY, Handshake.THREE_WAY, Handshake.NONE),
        Kind.SIMULTANEOUS: (Handshake.SIMULTANEOUS, Handshake.NONE),
    }
    return tuple(
        (label_of(kind), label_of(handshake))
        for kind in Kind
        for handshake in orderly.get(kind, (Handshake.NONE,))
    )


# What a RST of the peer's can mean; all others but the first are reasons of ours to send one.
_RECEIVED: Final = (Cause.PEER, Cause.NO_LISTENER)


def _resets() -> tuple[Values, ...]:
    sent = (("sent", label_of(cause)) for cause in Cause if cause is not Cause.PEER)
    return (*sent, *(("received", label_of(cause)) for cause in _RECEIVED))


CLOSES: Final = Metric(
    "fourwave_closes_total",
    Type.COUNTER,
    Group.CLOSES,
    "Sockets that reached CLOSE, by how it came about and by how many segments the FINs took.",
    ("kind", "handshake"),
    _closes(),
)
FIN_ACKS: Final = Metric(
    "fourwave_fin_acks_total",
    Type.COUNTER,
    Group.CLOSES,
    "ACKs of the first FIN, by what carried them; closes for which that is not known are left out.",
    ("carrier",),
    tuple((label_of(carrier),) for carrier in FinAck if carrier),
)
RESETS: Final = Metric(
    "fourwave_resets_total",
    Type.COUNTER,
    Group.CLOSES,
    "Closes in which a RST was sent by this host or received from the peer, by cause.",
    ("direction", "cause"),
    _resets(),
)
STRAY_RESETS: Final = Metric(
    "fourwave_stray_resets_total",
    Type.COUNTER,
    Group.CLOSES,
    "RSTs this host sent for segments of no connection, by what was there instead.",
    ("cause",),
    (*((stray.name.lower(),) for stray in Stray if stray), (UNTOLD,)),
)
DATA_LOST_CLOSES: Final = Metric(
    "fourwave_data_lost_closes_total",
    Type.COUNTER,
    Group.CLOSES,
    "Closes in which bytes were lost, by kind; those of which it is not known are left out.",
    ("kind",),
    tuple((label_of(kind),) for kind in ENDED_EARLY),
)
FIN_ACK_FATES: Final = Metric(
    "fourwave_fin_ack_fates_total",
    Type.COUNTER,
    Group.CLOSES,
    "ACKs of the peer's FIN where the peer closed first, by when and why they left.",
    ("fate",),
    tuple((label_of(fate),) for fate in AckFate if fate),
)
TIME_WAIT_ENTRIES: Final = Metric(
    "fourwave_time_wait_entries_total",
    Type.COUNTER,
    Group.CLOSES,
    "Closes that were due for TIME_WAIT, by what came of it; refused: there was no room.",
    ("how",),
    tuple((label_of(how),) for how in TimeWait),
)
TIME_WAIT_CHANGES: Final = Metric(
    "fourwave_time_wait_changes_total",
    Type.COUNTER,
    Group.CLOSES,
    "What became of sockets in TIME_WAIT or on the way to it; absent without a hook.",
    ("change",),
    tuple((label_of(change),) for change in TimeWaitChange),
)
TEARDOWN: Final = Metric(
    "fourwave_teardown_seconds",
    Type.HISTOGRAM,
    Group.CLOSES,
    "From the first FIN or RST to CLOSE.",
    buckets=(1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.2, 0.5, 1, 5, 15, 60, 300),
)
ACCEPT_WAIT: Final = Metric(
    "fourwave_accept_wait_seconds",
    Type.HISTOGRAM,
    Group.CLOSES,
    "From the end of the handshake to accept(), of sockets closed by now; empty without a hook.",
    buckets=(1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1, 3, 10),
)
CLOSE_WAIT: Final = Metric(
    "fourwave_close_wait_seconds",
    Type.HISTOGRAM,
    Group.LEAKS,
    "How long the peer's FIN waited for ours, of sockets that are closed by now.",
    buckets=(1e-3, 0.01, 0.04, 0.1, 0.2, 1, 5, 15, 60, 300, 1800, 7200, 43200),
)
