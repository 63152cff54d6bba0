# SPDX-License-Identifier: Apache-2.0
"""How the ACK of the peer's FIN went: every fate from its evidence, and no claim without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.unit import builders as b
from tracer.classify import classify, judge
from tracer.classify_ack import ack_fates
from tracer.tcp import AckFate, AckFlag, ConnFlag, Kind
from tracer.tcp import TcpState as S
from tracer.verdict import RULES, Reason

if TYPE_CHECKING:
    from tracer.wire import Records

KNOWN, MOVED = AckFlag.CLOCK_KNOWN, AckFlag.CLOCK_KNOWN | AckFlag.CLOCK_MOVED
# The timer moved the clock 40 ms after the FIN.
BY_TIMER: dict[str, Any] = {"ack_flags": MOVED, "fin_clock_10us": 4_000}


def fate_of(made: Records) -> AckFate:
    """Return the fate of the FIN's ACK of one record."""
    return AckFate(int(classify(made, b.HOST)["ack_fate"][0]))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, AckFate.UNKNOWN),
        (BY_TIMER, AckFate.TIMER),
        (BY_TIMER | {"ack_ato_jiffies": 0}, AckFate.TICK),
        ({"ack_flags": KNOWN}, AckFate.AT_ONCE),
        ({"ack_flags": KNOWN | AckFlag.FULL_FRAME}, AckFate.FULL_FRAME),
        ({"ack_flags": KNOWN | AckFlag.ROUTE_QUICK}, AckFate.QUICK_ROUTE),
        ({"ack_flags": KNOWN | AckFlag.FILLS_HOLE}, AckFate.HOLE_FILLED),
        ({"ack_flags": MOVED | AckFlag.FILLS_HOLE}, AckFate.HOLE_FILLED),
        (BY_TIMER | {"dup_fin": 1, "at_fin_sent__segs_in": 1}, AckFate.REPEATED_FIN),
        # What else may have moved the clock.
        (BY_TIMER | {"at_fin_sent__segs_in": 1}, AckFate.UNKNOWN),
        (BY_TIMER | {"ack_flags": MOVED | AckFlag.DATA_UNREAD}, AckFate.UNKNOWN),
        (BY_TIMER | {"at_halfway__unacked": 1}, AckFate.UNKNOWN),
        (BY_TIMER | {"at_halfway__unsent": 1}, AckFate.UNKNOWN),
        (BY_TIMER | {"fin_clock_10us": 30_001}, AckFate.UNKNOWN),
        (BY_TIMER | {"fin_clock_10us": 0xFFFF}, AckFate.UNKNOWN),
        # Two ACKs and a repeated FIN: the first one's cause is not told.
        (BY_TIMER | {"dup_fin": 1, "at_fin_sent__segs_out": 9}, AckFate.UNKNOWN),
        ({"ack_sent_ns": b.FIN_NS + 40 * b.MS}, AckFate.TIMER),
        ({"ack_sent_ns": b.FIN_NS + 5_000}, AckFate.UNKNOWN),
        ({"ack_sent_ns": b.FIN_NS + 5_000, "ack_flags": KNOWN}, AckFate.AT_ONCE),
    ],
)
def test_an_ack_alone(fields: dict[str, Any], expected: AckFate) -> None:
    made = b.passive_four(**({"ack_sent_ns": 0} | fields))
    assert b.reason_of(made) in {Reason.PURE_ACK, Reason.PURE_ACK_SEEN}
    assert fate_of(made) is expected


def test_what_carried_it_follows_from_the_rule() -> None:
    assert fate_of(b.passive()) is AckFate.MERGED
    data = b.passive_four(at_fin_sent__data_segs_out=1)
    assert fate_of(data) is AckFate.DATA
    assert fate_of(b.passive_four(fin_received_ns=0)) is AckFate.UNKNOWN


def test_a_fin_that_came_before_ours_could_leave_is_acknowledged_at_once() -> None:
    """tcp_fin() in FIN_WAIT1."""
    made = b.crossing(at_halfway__unsent=1)
    assert b.reason_of(made) is Reason.FIN_STILL_QUEUED
    assert fate_of(made) is AckFate.AT_ONCE


@pytest.mark.parametrize("make", [b.active, b.orphan, b.crossing, b.aborted, b.reset, b.attempt])
def test_others_have_none(make: Any) -> None:
    assert fate_of(make()) is AckFate.NONE


def test_every_passive_reason_has_a_fate() -> None:
    """And no other: what a new rule says of the carrier is enough."""
    reasons = np.array([int(reason) for reason in Reason], np.uint8)
    records = np.concatenate([b.passive_four() for _ in reasons])
    fates = ack_fates(records, reasons)
    passive = [RULES[reason].kind is Kind.PASSIVE for reason in Reason]
    assert (fates != AckFate.NONE).tolist() == passive


def test_noise_has_a_fate_in_the_enum() -> None:
    made = b.noise(np.random.default_rng(3), 5_000)
    fates = ack_fates(made, judge(made, b.HOST))
    assert set(fates.tolist()) <= {int(fate) for fate in AckFate}


def test_when_it_left_is_shown() -> None:
    close = b.close_of(b.passive_four(**BY_TIMER))
    assert close.delayed_ack is not None
    assert (close.delayed_ack.fate, close.delayed_ack.after_us) == ("timer", 40_000)
    assert "by the delayed-ACK timer after 40 ms" in close.why
    assert close.timeline_us["ack_sent"] - close.timeline_us["fin_received"] == 40_000


def test_no_time_is_claimed_where_none_is_known() -> None:
    close = b.close_of(b.passive_four())
    assert close.delayed_ack is not None
    assert (close.delayed_ack.fate, close.delayed_ack.after_us) == ("unknown", None)
    assert "ack_sent" not in close.timeline_us


def test_closing_has_no_delayed_ack() -> None:
    made = b.crossing(at_halfway__unsent=1, flags=ConnFlag.OPENED_ACTIVE)
    assert made["states_seen"][0] & 1 << S.CLOSE_WAIT == 0
    assert b.close_of(made).delayed_ack is None


@pytest.mark.parametrize(
    ("fields", "after_us"),
    [
        ({"at_fin_sent__segs_in": 1}, 40_000),
        ({"at_fin_sent__segs_in": 2}, None),
        ({"ack_flags": MOVED | AckFlag.DATA_UNREAD}, None),
        ({"fin_clock_10us": 0xFFFF}, None),
    ],
)
def test_a_repeated_fin_may_not_be_the_last_to_set_the_clock(
    fields: dict[str, Any], after_us: int | None
) -> None:
    close = b.close_of(b.passive_four(**(BY_TIMER | {"dup_fin": 1} | fields)))
    assert close.delayed_ack is not None
    assert (close.delayed_ack.fate, close.delayed_ack.after_us) == ("repeated_fin", after_us)
