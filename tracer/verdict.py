# SPDX-License-Identifier: Apache-2.0
"""What a close can be judged to be: one Reason per rule, one row of RULES per Reason.

classify() decides the Reason of every record; kind, handshake, fin_ack and cause
follow from this table, and why.py has one sentence for each. A new rule is a
member here, a row in RULES, a condition in classify_*.py and a sentence.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from tracer.tcp import Cause, Evidence, FinAck, Handshake, Kind

Verdicts: TypeAlias = npt.NDArray[np.void]
"""An array of VERDICT_DTYPE."""

FALSE, TRUE, NULL = 0, 1, 2
"""The three values of VERDICT_DTYPE's time_wait and data_lost."""
TRISTATES: Final = {FALSE: False, TRUE: True, NULL: None}

VERDICT_DTYPE = np.dtype(
    [
        ("kind", "u1"),  # Kind
        ("handshake", "u1"),  # Handshake
        ("fin_ack", "u1"),  # FinAck
        ("evidence", "u1"),  # Evidence
        ("cause", "u1"),  # Cause
        ("time_wait", "u1"),  # FALSE, TRUE, NULL
        ("data_lost", "u1"),  # FALSE, TRUE, NULL
        ("ack_fate", "u1"),  # AckFate
        ("how", "u1"),  # How
        ("signal_or_code", "u1"),  # signal with How.SIGNAL, exit status with How.EXIT
        ("rst_sent", "u1"),  # we sent a RST for this socket
        ("closer_known", "u1"),  # conn_record.closer may be named
        ("reason", "u1"),  # Reason
    ]
)


class Reason(IntEnum):
    """Which rule decided."""

    # unknown
    NOT_A_CLOSE = 0
    GAP = 1
    CONTRADICTION = 3
    UNEXPLAINED = 4
    NO_ERROR_NO_RST = 5
    # passive
    FIN_CARRIED_ACK = 10
    LAST_DATA_CARRIED_ACK = 11
    FIN_CARRIED_ACK_RESENT = 12
    PURE_ACK = 13
    DATA_CARRIED_ACK = 14
    PURE_OR_DATA = 15
    FIN_ARRIVAL_UNSEEN = 16
    QUEUED_DATA_CARRIED_ACK = 17
    QUEUED_DATA_OR_PURE = 18
    EXTRA_SEGMENTS = 19
    LAST_ACK_UNSEEN = 20
    PASSIVE_COUNTERS = 21
    FIN_STILL_QUEUED = 22
    PURE_ACK_SEEN = 23
    HOOK_CONTRADICTS = 24
    # active
    PEER_FIN_CARRIED_ACK = 30
    PEER_PURE_ACK = 31
    PEER_DATA_CARRIED_ACK = 32
    PEER_PURE_OR_DATA = 33
    FIN_ACK_UNSEEN = 34
    ONE_SKB = 35
    ACTIVE_COUNTERS = 36
    FIN_ACK_MISSED = 37
    PEER_FIN_OUT_OF_ORDER = 38
    PEER_FIN_MAY_BE_REFUSED = 39
    # simultaneous
    FINS_CROSSED = 40
    CLOSING_UNSEEN = 41
    # abort
    UNREAD_DATA = 50
    LINGER_ZERO = 51
    DATA_AFTER_CLOSE = 52
    DISCONNECT = 53
    OUT_OF_MEMORY_AT_CLOSE = 54
    OUT_OF_MEMORY_IN_TIMER = 55
    LINGER2_NEGATIVE = 56
    SOCK_DESTROY = 57
    LISTENER_CLOSED = 58
    ABORT_UNEXPLAINED = 59
    REPAIR = 60
    LINGER_ZERO_SILENT = 61
    DISCONNECT_SILENT = 62
    SOCK_DESTROY_SILENT = 63
    # reset
    RST_RECEIVED = 70
    RST_INFERRED = 71
    # timeout
    RETRANSMIT_TIMEOUT = 80
    ZERO_WINDOW_TIMEOUT = 81
    USER_TIMEOUT = 82
    KEEPALIVE = 83
    FIN_WAIT2_TIMER = 84
    TIMEOUT_UNEXPLAINED = 85
    UNSENDABLE = 86
    # refused
    SYN_REFUSED = 90
    SYN_UNREACHABLE = 91
    # attempt_failed
    SYN_TIMEOUT = 100
    SYN_USER_TIMEOUT = 101
    SYN_ERROR = 102
    SYN_RECV_RESET = 103
    SYN_CLOSED = 104
    SYN_DISCONNECT = 105
    SYN_NEVER_SENT = 106
    SYN_LISTENER_CLOSED = 107
    SYN_DESTROYED = 108
    SYN_UNEXPLAINED = 109


class Actor(IntEnum):
    """Whom conn_record.closer names when our FIN was not queued before."""

    NOBODY = 0
    """A bystander: the peer, a timer or the kernel ended it."""
    CLOSER = 1
    """Who closed."""
    DESTROYER = 2
    """Who ended it otherwise: no `how` of the contract fits."""


class Rule(NamedTuple):
    """The verdict that goes with a Reason."""

    kind: Kind
    handshake: Handshake = Handshake.NONE
    fin_ack: FinAck = FinAck.NONE
    cause: Cause = Cause.NONE
    actor: Actor = Actor.NOBODY
    hooked: bool = False
    silent: bool = False
    """An abort without a RST."""

    @property
    def rst_sent(self) -> bool:
        """Whether a RST left, seen or not: the rule proves it."""
        return self.kind is Kind.ABORT and not self.silent

    @property
    def evidence(self) -> Evidence:
        """Counters, wherever a handshake was derived and no hook saw its ACK leave."""
        if self.hooked:
            return Evidence.HOOK
        return Evidence.COUNTERS if self.handshake else Evidence.NONE


def _unknown() -> Rule:
    return Rule(Kind.UNKNOWN, cause=Cause.UNKNOWN)


def _ended(kind: Kind, cause: Cause, actor: Actor = Actor.NOBODY) -> Rule:
    return Rule(kind, cause=cause, actor=actor)


def _forgotten(cause: Cause, actor: Actor) -> Rule:
    return Rule(Kind.ABORT, cause=cause, actor=actor, silent=True)


_NO, _FOUR, _THREE = Handshake.NONE, Handshake.FOUR_WAY, Handshake.THREE_WAY

RULES: dict[Reason, Rule] = {
    Reason.NOT_A_CLOSE: _unknown(),
    Reason.GAP: _unknown(),
    Reason.CONTRADICTION: _unknown(),
    Reason.UNEXPLAINED: _unknown(),
    Reason.NO_ERROR_NO_RST: _unknown(),
    Reason.FIN_CARRIED_ACK: Rule(Kind.PASSIVE, _THREE, FinAck.FIN),
    Reason.LAST_DATA_CARRIED_ACK: Rule(Kind.PASSIVE, _THREE, FinAck.FIN),
    Reason.FIN_CARRIED_ACK_RESENT: Rule(Kind.PASSIVE, _THREE, FinAck.FIN),
    Reason.PURE_ACK: Rule(Kind.PASSIVE, _FOUR, FinAck.PURE),
    Reason.DATA_CARRIED_ACK: Rule(Kind.PASSIVE, _FOUR, FinAck.DATA),
    Reason.PURE_OR_DATA: Rule(Kind.PASSIVE, _FOUR),
    Reason.FIN_ARRIVAL_UNSEEN: Rule(Kind.PASSIVE, _FOUR),
    Reason.QUEUED_DATA_CARRIED_ACK: Rule(Kind.PASSIVE, _FOUR, FinAck.DATA),
    Reason.QUEUED_DATA_OR_PURE: Rule(Kind.PASSIVE, _FOUR),
    Reason.EXTRA_SEGMENTS: Rule(Kind.PASSIVE, _NO),
    Reason.LAST_ACK_UNSEEN: Rule(Kind.PASSIVE, _NO),
    Reason.PASSIVE_COUNTERS: Rule(Kind.PASSIVE, _NO),
    Reason.FIN_STILL_QUEUED: Rule(Kind.PASSIVE, _FOUR, FinAck.PURE),
    Reason.PURE_ACK_SEEN: Rule(Kind.PASSIVE, _FOUR, FinAck.PURE, hooked=True),
    Reason.HOOK_CONTRADICTS: Rule(Kind.PASSIVE, _NO),
    Reason.PEER_FIN_CARRIED_ACK: Rule(Kind.ACTIVE, _THREE, FinAck.FIN),
    Reason.PEER_PURE_ACK: Rule(Kind.ACTIVE, _FOUR, FinAck.PURE),
    Reason.PEER_DATA_CARRIED_ACK: Rule(Kind.ACTIVE, _FOUR, FinAck.DATA),
    Reason.PEER_PURE_OR_DATA: Rule(Kind.ACTIVE, _FOUR),
    Reason.FIN_ACK_UNSEEN: Rule(Kind.ACTIVE, _FOUR),
    Reason.ONE_SKB: Rule(Kind.ACTIVE, _NO),
    Reason.ACTIVE_COUNTERS: Rule(Kind.ACTIVE, _NO),
    Reason.FIN_ACK_MISSED: Rule(Kind.ACTIVE, _NO),
    Reason.PEER_FIN_OUT_OF_ORDER: Rule(Kind.ACTIVE, _NO),
    Reason.PEER_FIN_MAY_BE_REFUSED: Rule(Kind.ACTIVE, _NO),
    Reason.FINS_CROSSED: Rule(Kind.SIMULTANEOUS, Handshake.SIMULTANEOUS, FinAck.PURE),
    Reason.CLOSING_UNSEEN: Rule(Kind.SIMULTANEOUS, _NO),
    Reason.UNREAD_DATA: _ended(Kind.ABORT, Cause.UNREAD_DATA, Actor.CLOSER),
    Reason.LINGER_ZERO: _ended(Kind.ABORT, Cause.LINGER_ZERO, Actor.CLOSER),
    Reason.DATA_AFTER_CLOSE: _ended(Kind.ABORT, Cause.DATA_AFTER_CLOSE),
    Reason.DISCONNECT: _ended(Kind.ABORT, Cause.DISCONNECT, Actor.DESTROYER),
    Reason.OUT_OF_MEMORY_AT_CLOSE: _ended(Kind.ABORT, Cause.OUT_OF_MEMORY, Actor.CLOSER),
    Reason.OUT_OF_MEMORY_IN_TIMER: _ended(Kind.ABORT, Cause.OUT_OF_MEMORY),
    Reason.LINGER2_NEGATIVE: _ended(Kind.ABORT, Cause.FIN_WAIT2_TIMEOUT, Actor.CLOSER),
    Reason.SOCK_DESTROY: _ended(Kind.ABORT, Cause.SOCK_DESTROY, Actor.DESTROYER),
    Reason.LISTENER_CLOSED: _ended(Kind.ABORT, Cause.NO_LISTENER),
    Reason.REPAIR: _forgotten(Cause.DISCONNECT, Actor.CLOSER),
    Reason.LINGER_ZERO_SILENT: _forgotten(Cause.LINGER_ZERO, Actor.CLOSER),
    Reason.DISCONNECT_SILENT: _forgotten(Cause.DISCONNECT, Actor.DESTROYER),
    Reason.SOCK_DESTROY_SILENT: _forgotten(Cause.SOCK_DESTROY, Actor.DESTROYER),
    Reason.ABORT_UNEXPLAINED: _ended(Kind.ABORT, Cause.UNKNOWN),
    Reason.RST_RECEIVED: _ended(Kind.RESET, Cause.PEER),
    Reason.RST_INFERRED: _ended(Kind.RESET, Cause.PEER),
    Reason.RETRANSMIT_TIMEOUT: _ended(Kind.TIMEOUT, Cause.RETRANSMIT_TIMEOUT),
    Reason.ZERO_WINDOW_TIMEOUT: _ended(Kind.TIMEOUT, Cause.RETRANSMIT_TIMEOUT),
    Reason.UNSENDABLE: _ended(Kind.TIMEOUT, Cause.RETRANSMIT_TIMEOUT),
    Reason.USER_TIMEOUT: _ended(Kind.TIMEOUT, Cause.USER_TIMEOUT),
    Reason.KEEPALIVE: _ended(Kind.TIMEOUT, Cause.KEEPALIVE),
    Reason.FIN_WAIT2_TIMER: _ended(Kind.TIMEOUT, Cause.FIN_WAIT2_TIMEOUT),
    Reason.TIMEOUT_UNEXPLAINED: _ended(Kind.TIMEOUT, Cause.UNKNOWN),
    Reason.SYN_REFUSED: _ended(Kind.REFUSED, Cause.NO_LISTENER),
    Reason.SYN_UNREACHABLE: _ended(Kind.REFUSED, Cause.UNKNOWN),
    Reason.SYN_TIMEOUT: _ended(Kind.ATTEMPT_FAILED, Cause.RETRANSMIT_TIMEOUT),
    Reason.SYN_USER_TIMEOUT: _ended(Kind.ATTEMPT_FAILED, Cause.USER_TIMEOUT),
    Reason.SYN_ERROR: _ended(Kind.ATTEMPT_FAILED, Cause.NONE),
    Reason.SYN_RECV_RESET: _ended(Kind.ATTEMPT_FAILED, Cause.PEER),
    Reason.SYN_CLOSED: _ended(Kind.ATTEMPT_FAILED, Cause.NONE, Actor.CLOSER),
    Reason.SYN_DISCONNECT: _ended(Kind.ATTEMPT_FAILED, Cause.DISCONNECT, Actor.DESTROYER),
    Reason.SYN_NEVER_SENT: _ended(Kind.ATTEMPT_FAILED, Cause.NONE, Actor.DESTROYER),
    Reason.SYN_LISTENER_CLOSED: _ended(Kind.ATTEMPT_FAILED, Cause.NO_LISTENER),
    Reason.SYN_DESTROYED: _ended(Kind.ATTEMPT_FAILED, Cause.SOCK_DESTROY, Actor.DESTROYER),
    Reason.SYN_UNEXPLAINED: _ended(Kind.ATTEMPT_FAILED, Cause.UNKNOWN),
}


def column_of(field: str) -> npt.NDArray[np.uint8]:
    """Return `field` of every Rule as an array to be indexed by Reason."""
    column = np.zeros(256, np.uint8)
    for reason, rule in RULES.items():
        column[reason] = getattr(rule, field)
    return column
