# SPDX-License-Identifier: Apache-2.0
"""Who accepted a connection, and after how long: by fentry, by kprobe, and not at all."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.kernel.test_hooks import watch_with
from tests.truth import bench
from tests.truth.mixed import SCENARIOS
from tests.truth.scenario import Stage
from tests.truth.sockets import Flavour, accept_queue
from tests.truth.wire import wait_until

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

    from tests.truth.compare import Record
    from tests.truth.netns import Net
    from tests.truth.sockets import Made

pytestmark = pytest.mark.kernel

COUNT = 12
QUEUED_S = 0.25
SLEEPERS = 40  # a kretprobe has ten places on a machine of up to five CPUs
MECHANISMS = ["fentry", "kprobe", "counters"]


def accepted_late(net: Net, flavour: Flavour) -> list[Made]:
    """Let connections wait in the accept queue for QUEUED_S."""
    stage = Stage(net, flavour, COUNT)
    try:
        clients = [stage.opener.connect() for _ in range(COUNT)]
        wait_until(lambda: accept_queue(stage.opener.listener) == COUNT, "a full queue")
        time.sleep(QUEUED_S)
        for client in clients:
            pair = stage.adopt(client)
            pair.exchange()
            pair.first.close()
            pair.second.close()
        return stage.made
    finally:
        stage.close()


def accepted_ends(run: bench.Run) -> list[Record]:
    """Hold them against the packets; return the records of the server's ends."""
    assert run.report.right, run.report.text(limit=3)
    return [record for record in run.records if record["opened"] == "passive"]


def waited_s(end: Record) -> float:
    """Return how long it was in the accept queue."""
    at = end["timeline_us"]
    return float(at["accepted"] - at["established"]) * 1e-6


@contextlib.contextmanager
def asleep_in_accept(listener: socket.socket, count: int) -> Iterator[None]:
    """Let `count` processes wait for a connection that does not come."""
    pids = []
    for _ in range(count):
        if not (pid := os.fork()):
            listener.accept()
            os._exit(0)
        pids.append(pid)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_who_accepted_and_when(
    mechanism: str, loopback_net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This process accepted, after the time the connection was left waiting."""
    net = loopback_net
    with watch_with(mechanism, net, monkeypatch) as watch:
        late = [
            end
            for flavour in (Flavour.V4, Flavour.V6)
            for end in accepted_ends(
                bench.run(net, tmp_path, partial(accepted_late, net, flavour), watch)
            )
        ]
    assert len(late) == 2 * COUNT
    if mechanism == "counters":
        assert {end["opener"] for end in late} == {None}
        assert not any("accepted" in end["timeline_us"] for end in late)
        return
    assert {end["opener"]["pid"] for end in late} == {os.getpid()}
    assert min(map(waited_s, late)) >= QUEUED_S


@pytest.mark.parametrize("mechanism", ["fentry", "kprobe"])
def test_nobody_accepted(
    mechanism: str, loopback_net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Children that were never accepted name nobody."""
    net = loopback_net
    entry = SCENARIOS["listener_closed"]
    with watch_with(mechanism, net, monkeypatch) as watch:
        run = bench.run(net, tmp_path, lambda: entry.run(net, Flavour.V4, COUNT), watch)
    ends = accepted_ends(run)
    assert len(ends) == COUNT
    assert {(end["opener"], "accepted" in end["timeline_us"]) for end in ends} == {(None, False)}


@pytest.mark.parametrize("mechanism", ["fentry", "kprobe"])
def test_sleepers_hide_nobody(
    mechanism: str, loopback_net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes asleep in accept() leave the hook to the others, however many they are."""
    net = loopback_net
    with watch_with(mechanism, net, monkeypatch) as watch, net.client.ns.socket() as idle:
        idle.bind(("127.0.0.1", 0))
        idle.listen()
        with asleep_in_accept(idle, SLEEPERS):
            run = bench.run(net, tmp_path, lambda: accepted_late(net, Flavour.V4), watch)
    assert {end["opener"]["pid"] for end in accepted_ends(run)} == {os.getpid()}
