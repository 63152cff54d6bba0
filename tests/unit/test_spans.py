# SPDX-License-Identifier: Apache-2.0
"""Durations of arrays are those that a close shows alone, and fall into their buckets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit import builders as b
from tracer.classify import classify, judge
from tracer.close import closes_from
from tracer.metrics import TEARDOWN
from tracer.spans import accept_wait_ns, close_wait_ns, teardown_ns
from tracer.tally import Durations, Tally
from tracer.tcp import Cause, RstFlag, TcpState
from tracer.verdict import RULES, Reason
from tracer.wire import CLOSE_DTYPE

if TYPE_CHECKING:
    from tracer.wire import Records

TIMES = ("fin_received_ns", "fin_sent_ns", "rst_sent_ns", "rst_received_ns")


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 5_000_000)] * 5, st.booleans()), min_size=1))
def test_arrays_say_what_closes_say(rows: list[tuple[int, int, int, int, int, bool]]) -> None:
    """teardown_us and close_wait_us of the contract, without an object per close."""
    records = np.zeros(len(rows), CLOSE_DTYPE)
    for record, (*times, waited) in zip(records, rows, strict=True):
        record["old_state"] = TcpState.CLOSE_WAIT if waited else TcpState.LAST_ACK
        for name, value in zip((*TIMES, "closed_ns"), times, strict=True):
            record[name] = value
    records["type"] = 1
    verdicts = classify(records, b.HOST)
    closes = closes_from(records, verdicts, b.HOST, {}, 0)
    teardowns = [close.teardown_us for close in closes if close.teardown_us is not None]
    waits = [close.close_wait_us for close in closes if close.close_wait_us is not None]
    assert (teardown_ns(records, verdicts["reason"]) // 1000).tolist() == teardowns
    assert (close_wait_ns(records) // 1000).tolist() == waits


def test_the_wait_for_accept_is_that_of_the_timeline() -> None:
    records = np.concatenate([b.accepted(0), b.passive(), b.accepted(250)])
    closes = closes_from(records, classify(records, b.HOST), b.HOST, {}, 0)
    times = [close.timeline_us for close in closes]
    shown = [at["accepted"] - at["established"] for at in times if "accepted" in at]
    assert (accept_wait_ns(records) // 1000).tolist() == shown == [0, 250]


def test_a_bound_belongs_to_its_bucket() -> None:
    durations = Durations(TEARDOWN)
    bound_ns = round(TEARDOWN.buckets[2] * 1e9)
    durations.add(np.array([bound_ns, bound_ns + 1, 0, 10**15], np.uint64))
    assert [durations.counts[i] for i in (0, 2, 3, -1)] == [1, 1, 1, 1]
    assert durations.sum_ns == 2 * bound_ns + 1 + 10**15


def tallied(records: Records) -> Tally:
    tally = Tally()
    tally.add(records, judge(records, b.HOST))
    return tally


def test_a_reset_of_the_peer_is_received() -> None:
    record = b.record(
        old_state=TcpState.ESTABLISHED,
        rst_flags=RstFlag.RECEIVED,
        rst_received_ns=b.CLOSED_NS,
        sk_err=104,
    )
    assert tallied(record).resets() == {("received", "peer"): 1}


def test_an_abort_is_sent_with_its_cause() -> None:
    record = b.record(
        old_state=TcpState.ESTABLISHED,
        rst_flags=b.ACTIVE_AFTER,
        rst_sent_ns=b.CLOSED_NS + 1000,
        sk_flags=1 << 4,
        lingertime_jiffies=0,
    )
    (direction, cause), count = next(iter(tallied(record).resets().items()))
    assert (direction, count) == ("sent", 1)
    assert cause in {cause.name.lower() for cause in Cause}


@pytest.mark.parametrize(("lport", "counted"), [(0, 1), (40_000, 0)])
def test_a_connect_without_a_port_is_counted(lport: int, counted: int) -> None:
    record = b.record(
        opened_ns=b.OPENED_NS,
        established_ns=0,
        old_state=TcpState.SYN_SENT,
        states_seen=b.mask(TcpState.SYN_SENT),
        lport=lport,
    )
    tally = Tally()
    tally.add(record, np.array([Reason.SYN_NEVER_SENT], np.uint8))
    assert tally.without_port == counted


@pytest.mark.parametrize("reason", [r for r, rule in RULES.items() if rule.silent])
def test_an_abort_without_a_rst_is_no_reset(reason: Reason) -> None:
    tally = Tally()
    tally.add(b.record(), np.array([reason], np.uint8))
    assert tally.resets() == {}


def test_a_close_by_fins_is_no_reset() -> None:
    assert tallied(b.record(fin_received_ns=b.FIN_NS, fin_sent_ns=b.FIN_NS + 5)).resets() == {}
