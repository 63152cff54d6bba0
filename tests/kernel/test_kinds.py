# SPDX-License-Identifier: Apache-2.0
"""Every kind of close, 23 of each, against what was meant and against the packets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.kinds import Place, judge
from tests.kernel.lanes import Case, Lanes
from tests.truth.mixed import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.truth.netns import Net
    from tests.truth.watch import Watch
    from tests.truth.wire import WiredNet

pytestmark = pytest.mark.kernel


def cases(*, wired: bool = False, waits: bool = False) -> Iterator[object]:
    """Yield (name, server_first) for pytest, both ways round where that makes a difference."""
    for entry in SCENARIOS.values():
        if entry.waits == waits and (waits or entry.wired == wired):
            for server_first in (False, True)[: 1 + entry.both_ways]:
                way = "server" if server_first else "client"
                yield pytest.param(entry.name, server_first, id=f"{entry.name}-{way}")


@pytest.fixture(scope="module", autouse=True)
def lanes(request: pytest.FixtureRequest) -> Iterator[Lanes]:
    """Where all that waits has begun by now, as far as it was asked for."""
    with Lanes() as made:
        made.begin(case_of(item) for item in request.session.items if is_waiting(item))
        yield made


def is_waiting(item: pytest.Item) -> bool:
    """Whether it is a case of what waits."""
    return isinstance(item, pytest.Function) and item.function is test_what_waits


def case_of(item: Any) -> Case:
    """Return what such a test is asked for."""
    return Case(**item.callspec.params)


@pytest.mark.parametrize(("name", "server_first"), list(cases()))
def test_on_loopback(
    name: str,
    server_first: bool,
    loopback_net: Net,
    tracer_watch: Watch,
    tmp_path: Path,
) -> None:
    """23 closes of this kind on lo: the record says what was meant and what the packets show."""
    place = Place(loopback_net, None, tmp_path, tracer_watch)
    judge(SCENARIOS[name], place, server_first=server_first)


@pytest.mark.parametrize(("name", "server_first"), list(cases(wired=True)))
def test_on_wire(
    name: str,
    server_first: bool,
    wired_net: WiredNet,
    tracer_watch: Watch,
    tmp_path: Path,
) -> None:
    """23 closes of a kind that needs a steered wire, judged from both of its ends."""
    place = Place(wired_net.net, wired_net.wire, tmp_path, tracer_watch)
    judge(SCENARIOS[name], place, server_first=server_first)


@pytest.mark.parametrize(("name", "server_first"), list(cases(waits=True)))
def test_what_waits(name: str, server_first: bool, lanes: Lanes) -> None:
    """23 closes of a kind that takes seconds: judged last, begun before all others."""
    lanes.judge(Case(name, server_first))
