# SPDX-License-Identifier: Apache-2.0
"""Recorded censuses are judged as what they were made of: each verdict of every detector.

When the layout of a census changes: `python -m tests.golden.censuses.make` (root).
"""

from __future__ import annotations

from typing import Final

import pytest

from tests.golden.censuses.replay import OLDER_MS, RECORDED, Looks, recorded
from tracer.detectors.close_wait_leak import CloseWaitLeak
from tracer.detectors.close_wait_verdict import Verdict
from tracer.detectors.listen_overflow import ListenOverflow
from tracer.detectors.listen_verdict import ListenVerdict
from tracer.detectors.local_ports import LocalPorts, PortVerdict

BYTES_MAX: Final = 150_000
LEAKS: Final = {
    "leak": Verdict.LEAK,
    "never_read": Verdict.LEAK,
    "awaits_gc": Verdict.AWAITS_GC,
    "late_close": Verdict.LATE_CLOSE,
    "half_close": Verdict.HALF_CLOSE,
    "accept_queue": Verdict.ACCEPT_QUEUE,
    "idle_pool": Verdict.IDLE_POOL,
}


@pytest.fixture(scope="module")
def looks() -> Looks:
    """All that was recorded."""
    return recorded()


def test_it_stays_small() -> None:
    assert RECORDED.stat().st_size < BYTES_MAX


@pytest.mark.parametrize("scene", LEAKS)
def test_close_wait(looks: Looks, scene: str) -> None:
    """All namespaces in one census, each told for itself, and settled by having been watched."""
    detector = CloseWaitLeak(OLDER_MS)
    report = [detector.look(census) for census in looks.censuses][-1]
    found = [f for f in report.findings if f.place.netns == looks.scenes[scene]]
    assert [(f.verdict, f.settled) for f in found] == [(LEAKS[scene], True)]


def test_local_ports(looks: Looks) -> None:
    findings = LocalPorts().look(looks.censuses[-1])
    (finding,) = (f for f in findings if f.netns == looks.scenes["no_port"])
    assert finding.verdict == PortVerdict.EXHAUSTED
    assert finding.time_wait == finding.capacity
    others = {f.verdict for f in findings if f.netns != finding.netns}
    assert others <= {PortVerdict.FINE}


@pytest.mark.parametrize(
    ("scene", "verdict"),
    [
        ("full_queue", ListenVerdict.FULL),
        ("accept_queue", ListenVerdict.STUCK),
        ("leak", ListenVerdict.FINE),
    ],
)
def test_listeners(looks: Looks, scene: str, verdict: ListenVerdict) -> None:
    detector = ListenOverflow()
    report = [detector.look(census) for census in looks.censuses][-1]
    found = [f.verdict for f in report.findings if f.netns == looks.scenes[scene]]
    assert found == [verdict]
