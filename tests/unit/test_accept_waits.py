# SPDX-License-Identifier: Apache-2.0
"""How long connections waited for accept(): percentiles per port, a little high, never too low."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit import builders as b
from tracer.classify import judge
from tracer.detectors import accept_waits
from tracer.detectors.accept_waits import AcceptWait, AcceptWaits

if TYPE_CHECKING:
    import pytest

MAX_US = 0xFFFF_FFFF
NETNS, PORT = 4_026_531_840, 80


def waits_of(*batches: b.Records) -> AcceptWaits:
    """Return what these batches of closes come to."""
    waits = AcceptWaits()
    for closes in batches:
        waits.add(closes, judge(closes, b.HOST))
    return waits


def accepted(waits_us: list[int], **fields: int) -> b.Records:
    """Return closes of one port that had waited so long."""
    made = np.concatenate(
        [b.accepted(0, **{"netns": NETNS, "lport": PORT} | fields)] * len(waits_us)
    )
    made["opener"]["uid"] = waits_us
    return made


@settings(deadline=None)
@given(st.lists(st.integers(0, MAX_US) | st.integers(0, 1_000), min_size=1, max_size=300))
def test_percentiles_are_an_eighth_too_high_at_most(waits_us: list[int]) -> None:
    (wait,) = waits_of(accepted(waits_us)).found().values()
    in_order = sorted(waits_us)
    assert (wait.accepted, wait.max_us) == (len(waits_us), in_order[-1])
    for share, told in ((0.50, wait.p50_us), (0.99, wait.p99_us)):
        exact = in_order[int(np.ceil(share * len(in_order))) - 1]
        assert exact <= told <= max(1, exact * 1.13)


def test_ports_and_namespaces_are_told_apart_and_batches_added_up() -> None:
    first = np.concatenate([accepted([10, 20]), accepted([30], lport=81), b.passive()])
    found = waits_of(first, accepted([40], netns=1), accepted([50])).found()
    assert {port: wait.accepted for port, wait in found.items()} == {
        (NETNS, PORT): 3,
        (NETNS, 81): 1,
        (1, PORT): 1,
    }
    assert found[NETNS, PORT] == AcceptWait(3, 22, 50, 50)  # 20 in its bucket


def test_no_accept_seen_is_nothing_found() -> None:
    assert waits_of(b.passive(), b.active()).found() == {}


def test_ports_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept_waits, "PORTS_MAX", 2)
    closes = np.concatenate([accepted([1], lport=port) for port in (1, 2, 3, 1)])
    assert [port for _, port in waits_of(closes).found()] == [1, 2]
