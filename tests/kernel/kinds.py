# SPDX-License-Identifier: Apache-2.0
"""A kind of close, 23 times: made, captured, and judged against what was meant and the packets."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tests.pace import EMULATED
from tests.truth import bench
from tests.truth.intent import packets_against_intent, records_against_intent
from tests.truth.sockets import Flavour

if TYPE_CHECKING:
    from pathlib import Path

    from tests.truth.netns import Net
    from tests.truth.scenario import Scenario
    from tests.truth.sockets import Made
    from tests.truth.watch import Watch
    from tests.truth.wire import Wire

# A prime number of connections, in every mix of address families: 23 in sum.
ON_LOOPBACK = {
    Flavour.V4: 8,
    Flavour.V6: 5,
    Flavour.MAPPED_SERVER: 5,
    Flavour.MAPPED_CLIENT: 5,
}
ON_WIRE = {Flavour.V4: 12, Flavour.V6: 11}
# A segment repeated because the host was busy can blur the evidence; then null is right.
UNDECIDED_MAX = 4 if EMULATED else 1
# Where the host was too slow for what was meant, or ran no program, the kind is made again.
TRIES = 20 if EMULATED else 3


class Place(NamedTuple):
    """A network, its wire if it has one, a folder for captures, and the tracer that looks on."""

    net: Net
    wire: Wire | None
    folder: Path
    watch: Watch


def judge(entry: Scenario, place: Place, *, server_first: bool) -> None:
    """Assert: packets as meant, records as the packets have it, records as meant."""
    run = _made_whole(entry, place, server_first=server_first)
    if entry.no_time_wait:
        run = run.without_time_wait()
    bench_errors = packets_against_intent(entry, run, server_first=server_first)
    assert not bench_errors, "\n".join(bench_errors[:3])
    report = run.report
    assert report.right, report.text(limit=3)
    most = len(run.made) if entry.blurred else UNDECIDED_MAX
    assert len(report.undecided) <= most, report.text(limit=3)
    lost = sum(made.ends for made in run.made) - len(run.records)
    told = lost > 0 and place.watch.accounts_for(lost, run.lost_before)
    wrong = records_against_intent(entry, run, server_first=server_first, told=told)
    assert not wrong, f"{len(wrong)} of {len(run.records)}\n" + "\n".join(wrong[:3])


def _made_whole(entry: Scenario, place: Place, *, server_first: bool) -> bench.Run:
    """Run until the busy host made what was meant; a wrong verdict is never tried again.

    The packets may differ from what was meant (a FIN repeated because an answer was late), and
    the host may have run no program for a transition.
    """
    for _ in range(TRIES - 1):
        result = _run(entry, place, server_first=server_first)
        report = result.report
        told = report.missing and place.watch.accounts_for(len(report.missing), result.lost_before)
        otherwise = packets_against_intent(entry, result, server_first=server_first)
        undecided = report.undecided and not entry.blurred
        if report.disagreed or not (undecided or told or otherwise):
            return result
    return _run(entry, place, server_first=server_first)


def _run(entry: Scenario, place: Place, *, server_first: bool) -> bench.Run:
    """Make 23 connections, one flavour after the other, and capture them."""

    def traffic() -> list[Made]:
        made = []
        for flavour, count in (ON_WIRE if place.wire else ON_LOOPBACK).items():
            made += entry.run(place.net, flavour, count, server_first=server_first, wire=place.wire)
        return made

    return bench.run(place.net, place.folder, traffic, place.watch)
