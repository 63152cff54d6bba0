# SPDX-License-Identifier: Apache-2.0
"""Closes over a path that loses, delays, reorders and doubles packets: still as the packets say.

A FIN is repeated, ACKs go missing, FINs cross or arrive before the data they follow. Then more
must be left undecided, but nothing may be told otherwise than either end's own capture has it.
"""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.truth import bench
from tests.truth.lossy import lossy_net, netem_missing
from tests.truth.mixed import SCENARIOS
from tests.truth.sockets import Flavour
from tests.truth.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.truth.netns import Net
    from tests.truth.sockets import Made

pytestmark = pytest.mark.kernel

PATHS = {
    "loss": ("loss", "10%", "delay", "2ms"),
    "delay": ("delay", "30ms"),
    "reordering": ("delay", "8ms", "reorder", "50%"),
    "jitter": ("delay", "12ms", "10ms"),
    "duplication": ("delay", "2ms", "duplicate", "30%"),
    "everything": ("loss", "5%", "delay", "8ms", "7ms", "duplicate", "10%"),
}
SEED = 20_232
BATCHES = 40
BATCH = 4
THREADS = 20
# Those that wait for nothing a slow path would not bring in the end.
CLOSES = (
    *("three_way", "three_way_with_last_words", "shutdown_then_close", "four_way"),
    *("four_way_held", "four_way_ack_on_data", "answer_and_close", "half_close_stream"),
    *("unread_at_the_end", "silent"),
)
# One in so many may be left undecided; more where segments come twice: a socket that dropped one
# cannot tell whether it was its peer's FIN, sent before.
UNDECIDED_PER = 8
UNDECIDED_OF_DOUBLES_PER = 4


def traffic(net: Net) -> list[Made]:
    """Make BATCHES times BATCH connections of these kinds, THREADS batches at a time."""
    rng = random.Random(SEED)

    def batch(seed: float) -> list[Made]:
        chance = random.Random(seed)
        entry = SCENARIOS[chance.choice(CLOSES)]
        server_first = entry.both_ways and chance.random() < 0.5
        return entry.run(net, chance.choice(list(Flavour)), BATCH, server_first=server_first)

    with ThreadPoolExecutor(THREADS) as pool:
        batches = pool.map(batch, [rng.random() for _ in range(BATCHES)])
        return [made for one in batches for made in one]


@pytest.fixture(scope="module")
def watch() -> Iterator[Watch]:
    """The tracer, where there are such paths."""
    lacks = netem_missing()
    if lacks:
        # Not a failure even where all kernel tests are asked for: the guests of `make vm` can.
        pytest.skip(f"this kernel makes no lossy path: {lacks}")
    running = Watch()
    yield running
    running.stop()


@pytest.mark.parametrize("path", PATHS)
def test_a_spoilt_path(path: str, watch: Watch, tmp_path: Path) -> None:
    """160 connections over it: no record contradicts what its end sent and what reached it."""
    with lossy_net(*PATHS[path]) as net:
        run = bench.run(net, tmp_path, lambda: traffic(net), watch)
    report = run.report
    assert not report.disagreed, report.text()
    assert not report.extra, report.text()
    assert watch.accounts_for(len(report.missing), run.lost_before), report.text()
    most_per = UNDECIDED_OF_DOUBLES_PER if "duplicate" in PATHS[path] else UNDECIDED_PER
    assert len(report.undecided) * most_per <= report.closes, report.text()
