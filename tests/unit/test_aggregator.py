# SPDX-License-Identifier: Apache-2.0
"""Counting: every verdict in its cell, every close accounted for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tracer.aggregator import Aggregator
from tracer.tcp import Cause, FinAck, Handshake, Kind
from tracer.verdict import VERDICT_DTYPE

if TYPE_CHECKING:
    from tracer.verdict import Verdicts


def verdicts(*rows: tuple[Kind, Handshake, FinAck, Cause]) -> Verdicts:
    made = np.zeros(len(rows), VERDICT_DTYPE)
    for at, row in enumerate(rows):
        made[["kind", "handshake", "fin_ack", "cause"]][at] = row
    return made


THREE = (Kind.PASSIVE, Handshake.THREE_WAY, FinAck.FIN, Cause.NONE)
FOUR = (Kind.ACTIVE, Handshake.FOUR_WAY, FinAck.PURE, Cause.NONE)
ABORT = (Kind.ABORT, Handshake.NONE, FinAck.NONE, Cause.LINGER_ZERO)


def test_counts_by_kind_handshake_and_cause() -> None:
    """Prime numbers of closes come out as those numbers."""
    totals = Aggregator()
    totals.add(verdicts(*[THREE] * 23, *[FOUR] * 17))
    totals.add(verdicts(*[ABORT] * 7))
    seen = totals.snapshot()
    assert seen.shown == 47
    assert seen.closes == {
        (Kind.PASSIVE, Handshake.THREE_WAY): 23,
        (Kind.ACTIVE, Handshake.FOUR_WAY): 17,
        (Kind.ABORT, Handshake.NONE): 7,
    }
    assert seen.fin_acks == {FinAck.NONE: 7, FinAck.FIN: 23, FinAck.PURE: 17}
    assert seen.causes[Kind.ABORT, Cause.LINGER_ZERO] == 7


def test_every_combination_has_its_own_cell() -> None:
    """No two combinations share a counter."""
    rows = [(k, h, FinAck.NONE, c) for k in Kind for h in Handshake for c in Cause]
    totals = Aggregator()
    totals.add(verdicts(*rows))
    seen = totals.snapshot()
    assert set(seen.closes.values()) == {len(Cause)}
    assert set(seen.causes.values()) == {len(Handshake)}
    assert len(seen.closes) == len(Kind) * len(Handshake)


def test_nothing_is_nothing() -> None:
    """An empty batch changes nothing, and without totals nothing is claimed."""
    totals = Aggregator()
    totals.add(verdicts())
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
