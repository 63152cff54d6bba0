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
from tracer.spans import accept_wait_ns
from tracer.tcp import WAITED_MAX_US

if TYPE_CHECKING:
    import pytest

    from tracer.wire import Records

NETNS, PORT = 4_026_531_840, 80


def waits_of(*batches: Records) -> AcceptWaits:
    """Return what these batches of closes come to."""
    waits = AcceptWaits()
    for closes in batches:
        waits.add(closes, judge(closes, b.HOST))
    return waits


def accepted(waits_us: list[int], **fields: int) -> Records:
    """Return closes of one port that had waited so long."""
    made = np.concatenate(
        [b.accepted(0, **{"netns": NETNS, "lport": PORT} | fields)] * len(waits_us)
    )
    made["opener"]["uid"] = waits_us
    return made


@settings(deadline=None)
@given(st.lists(st.integers(0, WAITED_MAX_US) | st.integers(0, 1_000), min_size=1, max_size=300))
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
    assert found[NETNS, PORT] == AcceptWait(3, 22, 50, 50, 0)  # 20 in its bucket


def test_no_accept_seen_is_nothing_found() -> None:
    assert waits_of(b.passive(), b.active()).found() == {}


def test_ports_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept_waits, "PORTS_MAX", 2)
    closes = np.concatenate([accepted([1], lport=port) for port in (1, 2, 3, 1)])
    waits = waits_of(closes)
    assert [port for _, port in waits.found()] == [1, 2]
    assert waits.left_out == 1


def test_a_wait_too_long_for_its_field_stays_a_lower_bound() -> None:
    """One that is a little shorter is none, though both are the longest there are."""
    (wait,) = waits_of(accepted([WAITED_MAX_US] * 2 + [7] * 98)).found().values()
    assert (wait.p50_us, wait.p99_us, wait.beyond) == (7, WAITED_MAX_US, 2)
    (wait,) = waits_of(accepted([WAITED_MAX_US] + [WAITED_MAX_US - 9] * 999)).found().values()
    assert (wait.p99_us < wait.max_us, wait.max_us, wait.beyond) == (True, WAITED_MAX_US, 1)


def test_waits_are_those_of_the_histogram() -> None:
    """One selection: what metrics count is what the view counts."""
    closes = np.concatenate([accepted([10, 20]), b.passive(), b.active()])
    (wait,) = waits_of(closes).found().values()
    assert wait.accepted == len(accept_wait_ns(closes)) == 2
