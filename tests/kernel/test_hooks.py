# SPDX-License-Identifier: Apache-2.0
"""Each way to see the ACK of the peer's FIN leave: by fentry, by kprobe, and by no hook at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.pace import EMULATED
from tests.truth import bench
from tests.truth.compare import record_key
from tests.truth.intent import ends_as_meant
from tests.truth.mixed import SCENARIOS
from tests.truth.sockets import Flavour
from tests.truth.watch import Watch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.truth.compare import Record
    from tests.truth.netns import Net

pytestmark = pytest.mark.kernel

COUNT = 12
TRIES = 40 if EMULATED else 10
# The ACK leaves by itself; with data; with the FIN.
BY_ITSELF, OTHERWISE = "four_way", ("four_way_ack_on_data", "three_way")


def watch_with(mechanism: str, net: Net, monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Start the tracer with this mechanism, skip where the kernel has another one to offer."""
    monkeypatch.setenv("FOURWAVE_HOOKS", mechanism)
    watch = Watch(["--netns", str(net.client.ns.inum)])
    (ready,) = (line for line in watch.errors if line.startswith("ready"))
    if f" {mechanism}" not in ready:
        watch.stop()
        # Not a failure even where all kernel tests are asked for: the guests of `make vm` can.
        pytest.skip(f"this kernel allows no {mechanism}: {ready}")
    return watch


def passive_ends(name: str, net: Net, watch: Watch, folder: Path) -> list[Record]:
    """Make such closes, hold them against the packets, return COUNT records of the second end.

    Where the host was too slow for one, its delayed ACK left by itself, or a segment was repeated
    and left it undecided: another is made for it.
    """
    entry = SCENARIOS[name]
    ends: list[Record] = []
    for _ in range(TRIES):
        run = bench.run(net, folder, lambda: entry.run(net, Flavour.V4, COUNT), watch)
        assert run.report.right, run.report.text(limit=3)
        meant = ends_as_meant(entry, run, server_first=False)
        decided = (record for record in run.records if record["evidence"] is not None)
        passive = (record for record in decided if record["kind"] == "passive")
        ends += [record for record in passive if record_key(record) in meant]
        if len(ends) >= COUNT:
            return ends[:COUNT]
    pytest.fail(f"this host is too slow for {name}: {len(ends)} of {TRIES * COUNT}")


@pytest.mark.parametrize("mechanism", ["fentry", "kprobe", "counters"])
def test_the_ack_of_the_fin(
    mechanism: str, loopback_net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hook names the moment between both FINs; it never sees what data or our FIN carried."""
    with watch_with(mechanism, loopback_net, monkeypatch) as watch:
        seen = passive_ends(BY_ITSELF, loopback_net, watch, tmp_path)
        unseen = [
            end for name in OTHERWISE for end in passive_ends(name, loopback_net, watch, tmp_path)
        ]
    assert len(seen) == COUNT
    assert {end["evidence"] for end in unseen} == {"counters"}
    if mechanism == "counters":
        assert {end["evidence"] for end in seen} == {"counters"}
        return
    for end in seen:
        at = end["timeline_us"]
        assert end["evidence"] == "hook", end
        assert at["fin_received"] < at["ack_sent"] < at["fin_sent"], at
