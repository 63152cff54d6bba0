# SPDX-License-Identifier: Apache-2.0
"""A second start loads what the first has compiled, and sees the same closes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.truth import bench
from tests.truth.mixed import SCENARIOS
from tests.truth.sockets import Flavour
from tests.truth.watch import Watch
from tracer.kernel.census import CensusSource
from tracer.kernel.compiled import SWITCH
from tracer.kernel.source import KernelSource

if TYPE_CHECKING:
    from pathlib import Path

    from tests.truth.netns import Net

pytestmark = pytest.mark.kernel

COUNT = 12


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an own place for what is compiled, which is not there yet."""
    path = tmp_path / "cache"
    monkeypatch.setenv(SWITCH, str(path))
    return path


def compiled_when() -> str:
    """Start, count, detach; return whether this start has compiled."""
    with KernelSource(KernelSource.load()) as source:
        assert source.counters().data
        return str(source.manifest["compiled"])


def test_a_second_start_compiles_nothing(folder: Path) -> None:
    """Unless what was kept is damaged: then it is made anew."""
    assert compiled_when() == "now"
    assert compiled_when() == "before"
    (kept,) = folder.iterdir()
    kept.write_bytes(kept.read_bytes()[:-1])
    assert compiled_when() == "now"
    assert compiled_when() == "before"


def test_it_can_be_turned_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing is kept."""
    monkeypatch.setenv(SWITCH, "off")
    assert [compiled_when(), compiled_when()] == ["now", "now"]
    assert not folder.exists()


@pytest.mark.parametrize("name", ["four_way", "three_way"])
def test_closes_are_the_same(name: str, folder: Path, loopback_net: Net, tmp_path: Path) -> None:
    """As the packets have it."""
    compiled_when()
    with Watch(["--netns", str(loopback_net.client.ns.inum)]) as watch:
        assert len(list(folder.iterdir())) == 1
        run = bench.run(
            loopback_net,
            tmp_path,
            lambda: SCENARIOS[name].run(loopback_net, Flavour.V4, COUNT),
            watch,
        )
    assert len(run.records) >= 2 * COUNT
    assert run.report.right, run.report.text(limit=3)


def test_a_census_of_a_second_start_is_whole(folder: Path) -> None:
    """Its iterators run with the maps made anew; the file is only written when compiled."""
    written_ns = set()
    for _ in range(2):
        with CensusSource(CensusSource.load()) as source:
            if source.reason is not None:
                pytest.skip(f"this kernel allows no iterators: {source.reason}")
            assert source.take(owners=True).data
        (kept,) = folder.iterdir()
        written_ns.add(kept.stat().st_mtime_ns)
    assert len(written_ns) == 1
