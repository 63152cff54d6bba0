# SPDX-License-Identifier: Apache-2.0
"""Whose cgroup a record names: who made the socket, and for an accepted one its listener."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.truth.scenario import Stage
from tests.truth.sockets import Flavour, close_in_turn
from tracer.kernel.mountinfo import read_mounts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.truth.netns import Net
    from tests.truth.watch import Watch

pytestmark = pytest.mark.kernel

COUNT: Final = 5


@pytest.fixture
def cgroups() -> Iterator[tuple[Path, Path]]:
    """Two fresh cgroups, which this process leaves at the end for where it was."""
    there = read_mounts("/proc/self/mountinfo")
    mounts = [Path(os.fsdecode(mount.point)) for mount in there if mount.fstype == b"cgroup2"]
    if not mounts:
        pytest.skip("no cgroup2 is mounted here")
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    home = next(mounts[0] / line.removeprefix("0::/") for line in lines if line.startswith("0::"))
    made = tuple(mounts[0] / f"fw-{name}-{os.getpid()}" for name in ("listens", "accepts"))
    with contextlib.ExitStack() as stack:
        for path in made:
            try:
                path.mkdir()
            except OSError as error:
                pytest.skip(f"no cgroup can be made here: {error}")
            stack.callback(path.rmdir)
        stack.callback(enter, home)
        yield made[0], made[1]


def enter(cgroup: Path) -> None:
    """Move this process."""
    (cgroup / "cgroup.procs").write_text(str(os.getpid()))


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
