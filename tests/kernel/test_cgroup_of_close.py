# SPDX-License-Identifier: Apache-2.0
"""Whose cgroup a record names: who made the socket, and for an accepted one its listener."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import pytest

from tests.kernel.cgroup import enter, fresh
from tests.truth.scenario import Stage
from tests.truth.sockets import Flavour, close_in_turn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.truth.netns import Net
    from tests.truth.watch import Watch

pytestmark = pytest.mark.kernel

COUNT: Final = 5


@pytest.fixture
def cgroups() -> Iterator[tuple[Path, Path]]:
    """Two fresh cgroups."""
    with fresh("listens", "accepts") as (listens, accepts):
        yield listens, accepts


def test_an_accepted_socket_has_its_listeners(
    cgroups: tuple[Path, Path], loopback_net: Net, tracer_watch: Watch
) -> None:
    """Accepted in another cgroup than the one that listened, which is the connecting end's."""
    listens, accepts = cgroups
    since = tracer_watch.mark()
    enter(listens)
    with contextlib.closing(Stage(loopback_net, Flavour.V4, COUNT)) as stage:
        enter(accepts)
        pairs = stage.talked()
        close_in_turn(pairs)
    ports = {pair.made.client[1] for pair in pairs}
    found = tracer_watch.wait_records(loopback_net.inums, since, 2 * COUNT)
    mine = [one for one in found if ports & {one["lport"], one["rport"]}]
    assert len(mine) == 2 * COUNT
    assert {(one["opened"], one["cgroup"]) for one in mine} == {
        ("active", f"/{accepts.name}"),
        ("passive", f"/{listens.name}"),
    }
