# SPDX-License-Identifier: Apache-2.0
"""Counting: every verdict in its cell, every close accounted for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tracer.aggregator import Aggregator
from tracer.tcp import Cause, FinAck, Handshake, Kind
from tracer.verdict import RULES, Reason
from tracer.wire import CLOSE_DTYPE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tracer.wire import Records


def closes(*members: Reason) -> tuple[Records, NDArray[np.uint8]]:
    """Return empty records, and these reasons of them."""
    return np.zeros(len(members), CLOSE_DTYPE), np.array(members, np.uint8)


def test_counts_by_kind_handshake_and_cause() -> None:
    """Prime numbers of closes come out as those numbers."""
    totals = Aggregator()
    totals.add(*closes(*[Reason.FIN_CARRIED_ACK] * 23, *[Reason.PEER_PURE_ACK] * 17))
    totals.add(*closes(*[Reason.LINGER_ZERO] * 7))
    seen = totals.snapshot()
    assert seen.shown == 47
    assert seen.closes == {
        (Kind.PASSIVE, Handshake.THREE_WAY): 23,
        (Kind.ACTIVE, Handshake.FOUR_WAY): 17,
        (Kind.ABORT, Handshake.NONE): 7,
    }
    assert seen.fin_acks == {FinAck.NONE: 7, FinAck.FIN: 23, FinAck.PURE: 17}
    assert seen.causes[Kind.ABORT, Cause.LINGER_ZERO] == 7


def test_aborts_without_a_rst_are_told_apart() -> None:
    """They count among the causes, and once more by themselves."""
    totals = Aggregator()
    totals.add(*closes(*[Reason.LINGER_ZERO] * 7, *[Reason.LINGER_ZERO_SILENT] * 3, Reason.REPAIR))
    seen = totals.snapshot()
    assert seen.causes[Kind.ABORT, Cause.LINGER_ZERO] == 10
    assert seen.silent == {Cause.LINGER_ZERO: 3, Cause.DISCONNECT: 1}


def test_every_reason_counts_where_its_rule_says() -> None:
    """No reason is lost, none counts twice; those with one verdict share its cell."""
    totals = Aggregator()
    totals.add(*closes(*Reason))
    seen = totals.snapshot()
    for counts in (seen.closes, seen.fin_acks, seen.causes):
        assert sum(counts.values()) == len(Reason)
    for (kind, handshake), count in seen.closes.items():
        rules = [r for r in RULES.values() if (r.kind, r.handshake) == (kind, handshake)]
        assert count == len(rules)


def test_nothing_is_nothing() -> None:
    """An empty batch changes nothing, and without totals nothing is claimed."""
    totals = Aggregator()
    totals.add(*closes())
    assert totals.snapshot().closes == {}
    assert totals.snapshot().unaccounted is None


@pytest.mark.parametrize(
    ("kernel", "records", "unaccounted"),
    [
        ({"closes": 10, "emitted": 10}, 10, 0),
        ({"closes": 10, "emitted": 8, "ring_full": 1, "conn_map_full": 1}, 8, 0),
        ({"closes": 10, "emitted": 10}, 7, 3),
        ({"closes": 10, "emitted": 9, "unseen": 1}, 9, 0),
        ({"closes": 10, "emitted": 10}, 12, 0),  # two came after the totals were read
    ],
)
def test_every_close_is_accounted_for(
    kernel: dict[str, int], records: int, unaccounted: int
) -> None:
    """What the kernel saw is records and losses; the rest is told."""
    totals = Aggregator(records=records)
    totals.add_counters({**kernel, "programs": {}})
    assert totals.snapshot().unaccounted == unaccounted
