# SPDX-License-Identifier: Apache-2.0
"""All kinds mixed: every close accounted for and as the packets have it, also under load."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.pace import EMULATED, allowed_s
from tests.truth import bench
from tests.truth.mixed import mixed
from tests.truth.watch import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.truth.netns import Namespace, Net
    from tests.truth.watch import Watch

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

CONNECTIONS = 1_100
CLOSES_MIN = 2_000
# At most one in so many may be left undecided: a repeated segment can blur the evidence.
UNDECIDED_PER = 300 if EMULATED else 1_000
# And where the host runs no programs on top of some thread, a burst of segments comes there.
UNRUN_PER = 20
LOAD_CONNECTIONS = 20_000
LOAD_S = allowed_s(60.0)
SETTLED_S = allowed_s(10.0)
SEEDS = {"loopback": 20_230, "veth": 20_231}


@contextlib.contextmanager
def load(ns: Namespace, count: int) -> Iterator[subprocess.Popen[str]]:
    """Run `count` short connections inside `ns`; started when this yields."""
    command = ns.command(sys.executable, "-m", "tests.truth.load", str(count))
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "started\n"
            yield process
        finally:
            process.kill()


def mixed_run(net: Net, watch: Watch, folder: Path) -> bench.Run:
    """Make the mix of this network's seed; at least 2,000 closes."""
    seed = SEEDS[net.name]
    run = bench.run(net, folder, lambda: mixed(net, CONNECTIONS, seed=seed), watch)
    assert sum(made.ends for made in run.made) >= CLOSES_MIN
    return run


def check(run: bench.Run, watch: Watch, seed: int) -> None:
    """Assert: no disagreement, none missing, none extra, next to nothing left undecided.

    A host may refuse to run BPF programs in some contexts. A close that fell into one is
    accounted for when the tracer says by itself that it is lost.
    """
    report = run.report
    assert not report.disagreed, f"seed {seed}: {report.text()}"
    assert not report.extra, f"seed {seed}: {report.text()}"
    told = watch.accounts_for(len(report.missing), run.lost_before)
    assert told, f"seed {seed}: {report.text()}"
    assert report.unrun * UNRUN_PER <= report.closes, f"seed {seed}: {report.text()}"
    blurred = len(report.undecided) - report.unrun
    assert blurred * UNDECIDED_PER <= report.closes, f"seed {seed}: {report.text()}"


@pytest.mark.parametrize("where", ["loopback_net", "veth_net"])
def test_mixed(
    where: str,
    request: pytest.FixtureRequest,
    tracer_watch: Watch,
    tmp_path: Path,
) -> None:
    """More than 2,000 closes of all kinds on eight threads: no disagreement, none missing."""
    net = request.getfixturevalue(where)
    check(mixed_run(net, tracer_watch, tmp_path), tracer_watch, SEEDS[net.name])


@pytest.mark.parametrize("where", ["loopback_net", "veth_net"])
def test_mixed_under_load(
    where: str,
    request: pytest.FixtureRequest,
    load_net: Net,
    tracer_watch: Watch,
    tmp_path: Path,
) -> None:
    """The same while another namespace makes 20,000 short connections: their closes count, too."""
    net = request.getfixturevalue(where)
    busy, lost_before = load_net.client.ns, tracer_watch.lost()
    tracer_watch.only_count(busy.inum)
    with load(busy, LOAD_CONNECTIONS) as process:
        run = mixed_run(net, tracer_watch, tmp_path)
        assert process.wait(LOAD_S) == 0
    closes = 2 * LOAD_CONNECTIONS
    tracer_watch.wait_for(lambda: tracer_watch.counted[busy.inum] >= closes, SETTLED_S)
    missing = closes - tracer_watch.counted[busy.inum]
    assert missing >= 0
    assert tracer_watch.accounts_for(missing, lost_before), f"{missing} of {closes} unaccounted"
    check(run, tracer_watch, SEEDS[net.name])
