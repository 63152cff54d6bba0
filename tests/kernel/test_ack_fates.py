# SPDX-License-Identifier: Apache-2.0
"""How the ACK of the peer's FIN went, against when a capture saw it leave."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.truth import bench
from tests.truth.acks import FATES, ack_seen, set_quick_route
from tests.truth.scenario import Stage
from tests.truth.sockets import Flavour

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.truth.acks import AckSeen
    from tests.truth.compare import Record
    from tests.truth.sockets import Made
    from tests.truth.watch import Watch
    from tests.truth.wire import WiredNet

pytestmark = pytest.mark.kernel

COUNT = 11
AT_ONCE = {"at_once", "full_frame", "repeated_fin", "hole_filled", "quick_route"}
# The capture and TCP read the clock some microseconds apart; a busy host lies between them.
APART_S = 0.004
# What a busy host may have made otherwise (a segment repeated, a close() that was late).
OTHERWISE_MAX = 2
TRIES = 3


@contextlib.contextmanager
def quick_routes(wired: WiredNet, *, wanted: bool) -> Iterator[None]:
    """Have quickack on the server's route, where wanted."""
    if wanted:
        set_quick_route(wired.net.server, quick=True)
    try:
        yield
    finally:
        if wanted:
            set_quick_route(wired.net.server, quick=False)


def right(fate: str | None, after_us: int | None, seen: AckSeen) -> bool:
    """Whether fate and time are what the capture shows."""
    if fate in AT_ONCE:
        timely = not after_us or abs(seen.after_fin_s - after_us / 1e6) < APART_S
        return timely and seen.after_last_s < APART_S
    if fate in {"timer", "tick"}:
        return after_us is not None and abs(seen.after_fin_s - after_us / 1e6) < APART_S
    return fate in {"merged", "data", "unknown"}


def passive_ends(run: bench.Run) -> list[tuple[Record, AckSeen]]:
    """Return each record of an end whose peer closed first, with what the capture shows."""
    truths = {truth.key: truth for truth in run.truths}
    found = []
    for record in run.records:
        names = ("family", "laddr", "lport", "raddr", "rport")
        truth = truths[tuple(record[name] for name in names)]
        seen = ack_seen(truth) if record["kind"] == "passive" else None
        if seen is not None:
            found.append((record, seen))
    return found


@pytest.mark.parametrize("fate", FATES)
def test_fate(fate: str, wired_net: WiredNet, tracer_watch: Watch, tmp_path: Path) -> None:
    """11 closes each: never a fate the capture denies, and the fate that was meant."""

    def traffic() -> list[Made]:
        stage = Stage(wired_net.net, Flavour.V4, COUNT, wire=wired_net.wire)
        with contextlib.closing(stage):
            FATES[fate](stage)
            return stage.made

    for attempt in range(1, TRIES + 1):
        with quick_routes(wired_net, wanted=fate == "quick_route"):
            run = bench.run(wired_net.net, tmp_path, traffic, tracer_watch)
        ends = passive_ends(run)
        wrong = [
            (record["delayed_ack"], seen)
            for record, seen in ends
            if not right(record["delayed_ack"]["fate"], record["delayed_ack"]["after_us"], seen)
        ]
        assert not wrong, wrong
        as_meant = [record for record, _ in ends if record["delayed_ack"]["fate"] == fate]
        if len(as_meant) >= COUNT - OTHERWISE_MAX:
            return
        if attempt == TRIES:
            pytest.fail("\n".join(f"{r['delayed_ack']} {seen} {r['why']}" for r, seen in ends))
