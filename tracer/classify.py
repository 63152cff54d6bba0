# SPDX-License-Identifier: Apache-2.0
"""From evidence to verdict: pure, vectorised, a whole batch at a time.

The common closes are told apart with a few masks over the batch; every rule
that needs more columns runs only on the rows it concerns.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tracer.actors import are_known
from tracer.classify_abortive import abortive
from tracer.classify_ack import ack_fates
from tracer.classify_active import DONE, active
from tracer.classify_evidence import CLOSING, FIN_WAIT2, LAST_ACK
from tracer.classify_gap import past_a_gap
from tracer.classify_graceful import Reasons, closing, passive, since
from tracer.classify_loss import data_lost
from tracer.columns import Mask, Rows
from tracer.tcp import (
    RST_SENT,
    TW_NONE,
    ActorFlag,
    ConnFlag,
    FileRef,
    HostFacts,
    How,
    Kind,
    RecordType,
    RstFlag,
    SkFlag,
    TcpState,
)
from tracer.verdict import FALSE, NULL, TRUE, VERDICT_DTYPE, Actor, Reason, Verdicts, column_of

__all__ = ("VERDICT_DTYPE", "Verdicts", "classify", "closers_known", "judge", "verdicts_of")

Records = npt.NDArray[np.void]

BLOCK_RECORDS = 16_384
"""Records judged at once: a column finds the lines the last one left in the cache."""

RECORD_CLOSE = int(RecordType.CLOSE)
GAP = int(ConnFlag.GAP)
DEAD = int(SkFlag.DEAD)
ENDED_BY_RST = int(RstFlag.SENT_AFTER_CLOSE | RstFlag.RECEIVED)
UNKNOWN = int(Kind.UNKNOWN)
NOBODY, DESTROYER = int(Actor.NOBODY), int(Actor.DESTROYER)
NO_HOW, EXIT = np.uint8(How.NONE), np.uint8(How.EXIT)
GRACEFUL_FIRST, GRACEFUL_LAST = int(Reason.FIN_CARRIED_ACK), int(Reason.CLOSING_UNSEEN)
PEER_FIRST = 1 << TcpState.CLOSE_WAIT | 1 << TcpState.LAST_ACK
WE_FIRST = 1 << TcpState.FIN_WAIT1 | 1 << TcpState.FIN_WAIT2 | 1 << TcpState.CLOSING

# A socket cannot reach CLOSE from these, or has no teardown to judge.
_NO_TEARDOWN = tuple(int(state) for state in (TcpState.TIME_WAIT, TcpState.CLOSE, TcpState.LISTEN))
_OLD_STATE_IS_SOUND = np.zeros(256, np.bool_)
_OLD_STATE_IS_SOUND[TcpState.ESTABLISHED : TcpState.CLOSING + 1] = True
_OLD_STATE_IS_SOUND[list(_NO_TEARDOWN)] = False

_BY_REASON = {
    name: column_of(name) for name in ("kind", "handshake", "fin_ack", "cause", "evidence")
}
_ACTOR = column_of("actor")

# Reasons by what the mini-socket lookup means: 255 (not looked) and nonsense are null.
_TIME_WAIT = np.full(256, NULL, np.uint8)
_TIME_WAIT[TW_NONE] = FALSE
_TIME_WAIT[[TcpState.FIN_WAIT2, TcpState.TIME_WAIT]] = TRUE


def judge(records: Records, host: HostFacts) -> Reasons:
    """Return the Reason of each record of CLOSE_DTYPE, in order, as uint8.

    Never raises on the contents: what contradicts itself is of Kind.UNKNOWN.
    """
    reasons = np.empty(len(records), np.uint8)
    for start in range(0, len(records), BLOCK_RECORDS):
        block = slice(start, start + BLOCK_RECORDS)
        reasons[block] = _reasons(records[block], host)
    return reasons


def verdicts_of(records: Records, reasons: Reasons) -> Verdicts:
    """Return all there is to say of each record (VERDICT_DTYPE), given what judge() said."""
    verdicts = np.zeros(len(records), VERDICT_DTYPE)
    verdicts["reason"] = reasons
    for name, column in _BY_REASON.items():
        verdicts[name] = column[reasons]
    verdicts["time_wait"] = _time_wait(records, verdicts)
    verdicts["data_lost"] = data_lost(records, reasons)
    verdicts["ack_fate"] = ack_fates(records, reasons)
    verdicts["rst_sent"] = (records["rst_flags"] & RST_SENT) != 0
    _name_closers(records, reasons, verdicts)
    return verdicts


def classify(records: Records, host: HostFacts) -> Verdicts:
    """Return one verdict (VERDICT_DTYPE) per record of CLOSE_DTYPE, in order."""
    return verdicts_of(records, judge(records, host))


def _reasons(records: Records, host: HostFacts) -> Reasons:
    # One of the graceful endings per row, or none: then the rules for the rest.
    # Zero is Reason.NOT_A_CLOSE.
    reasons = np.zeros(len(records), np.uint8)
    old = records["old_state"]
    sound = _sound(records, old, reasons)
    graceful = sound & ((records["rst_flags"] & ENDED_BY_RST) == 0)
    at_close = records["at_close"]
    all_acked = graceful & ((at_close["unacked"] | at_close["unsent"]) == 0)
    endings = (
        (all_acked & (old == LAST_ACK), passive),
        (all_acked & (old == CLOSING), closing),
        (_fin_wait2_done(records, graceful & (old == FIN_WAIT2)), active),
    )
    rest = sound
    for mask, judge_ending in endings:
        index = np.flatnonzero(mask)
        if len(index):
            reasons[index] = judge_ending(Rows(records, index))
            rest = rest & ~mask
    index = np.flatnonzero(rest)
    if len(index):
        reasons[index] = abortive(Rows(records, index), host)
    gaps = np.flatnonzero(sound & ((records["flags"] & GAP) != 0))
    if len(gaps):
        reasons[gaps] = past_a_gap(Rows(records, gaps), reasons[gaps])
    return reasons


def _sound(records: Records, old: npt.NDArray[np.uint8], reasons: Reasons) -> Mask:
    # Rows that can be judged at all; the others get their reason here.
    # No connection passes states of both sides.
    seen = records["states_seen"]
    contradicts = ((seen & PEER_FIRST) != 0) & ((seen & WE_FIRST) != 0)
    closes = records["type"] == RECORD_CLOSE
    sound: Mask = closes & _OLD_STATE_IS_SOUND[old] & ~contradicts
    if not sound.all():
        reasons[closes & contradicts] = Reason.CONTRADICTION
    return sound


def _fin_wait2_done(records: Records, fin_wait2: Mask) -> Mask:
    # The peer's FIN came, or an orphan was handed to a mini-socket that awaits it.
    # Where the lookup found none and no RST was sent, there was no room for one.
    unfinished = fin_wait2 & ((records["sk_flags"] & DONE) == 0)
    index = np.flatnonzero(unfinished)
    if not len(index):
        return fin_wait2
    rows = Rows(records, index)
    # Data in the acknowledging segment is answered with a RST, whose report may be
    # lost: without a mini-socket no data may have come.
    handed_over = (
        rows.has("sk_flags", DEAD)
        & (rows.column("linger2") >= 0)
        & (rows.column("sk_err") == 0)
        & ~rows.has("rst_flags", RST_SENT)
        & (rows.column("fin_sent_ns") != 0)
        & (since(rows, "at_fin_sent", "at_halfway", "data_segs_in") == 0)
    )
    mini = _TIME_WAIT[rows.column("tw_substate")] == TRUE
    finished = fin_wait2.copy()
    finished[index] = mini | handed_over
    return finished


def _time_wait(records: Records, verdicts: Verdicts) -> npt.NDArray[np.uint8]:
    # Only FIN_WAIT2->CLOSE and CLOSING->CLOSE make a mini-socket. Where nothing
    # else is known of the record the lookup still counts.
    old = records["old_state"]
    kind = verdicts["kind"]
    reasons = verdicts["reason"]
    graceful = (reasons >= GRACEFUL_FIRST) & (reasons <= GRACEFUL_LAST)
    possible = ((old == FIN_WAIT2) | (old == CLOSING)) & graceful
    time_wait: npt.NDArray[np.uint8] = np.where(
        possible | (kind == UNKNOWN), _TIME_WAIT[records["tw_substate"]], np.uint8(FALSE)
    )
    return time_wait


def _how_table() -> npt.NDArray[np.uint8]:
    # How by actor flags (4 bits) and file reference (2 bits above them).
    table = np.full(64, How.NONE, np.uint8)
    for code in range(len(table)):
        flags, file = ActorFlag(code & 15), code >> 4
        if ActorFlag.VALID not in flags or ActorFlag.IN_SOFTIRQ in flags:
            continue
        if ActorFlag.EXITING in flags:
            table[code] = How.EXIT
        elif ActorFlag.KTHREAD in flags or file == FileRef.NONE:
            table[code] = How.KERNEL
        else:
            table[code] = How.SHUTDOWN if file == FileRef.ALIVE else How.CLOSE
    return table


_HOW = _how_table()


def closers_known(records: Records, reasons: Reasons) -> Mask:
    """Say which records' `closer` may be named, given what judge() said of them.

    It is who queued our FIN; without one it is whoever was in the way of CLOSE, who is
    named only where the ending was an application's own act.
    """
    queued = records["fin_sent_ns"] != 0
    known: Mask = are_known(records["closer"]) & (queued | (_ACTOR[reasons] != NOBODY))
    return known


def _name_closers(records: Records, reasons: Reasons, verdicts: Verdicts) -> None:
    known = closers_known(records, reasons)
    code = (records["closer"]["flags"] & 15) | ((records["closer"]["file_ref"] & 3) << 4)
    how = np.where(known & (_ACTOR[reasons] != DESTROYER), _HOW[code], NO_HOW)
    verdicts["closer_known"] = known
    verdicts["how"] = how
    exits = np.flatnonzero(how == EXIT)
    if len(exits):
        _name_exits(records["closer"]["exit_code"][exits], exits, verdicts)


def _name_exits(
    exit_code: npt.NDArray[np.uint32], index: npt.NDArray[np.intp], verdicts: Verdicts
) -> None:
    # wait(2)'s encoding: the signal in the low seven bits, else the status above.
    signal = exit_code & 0x7F
    status = (exit_code >> 8) & 0xFF
    verdicts["how"][index] = np.where(signal != 0, np.uint8(How.SIGNAL), np.uint8(How.EXIT))
    verdicts["signal_or_code"][index] = np.where(signal != 0, signal, status)
