# SPDX-License-Identifier: Apache-2.0
"""Runs that wait for timers of the kernel, side by side, while other tests run."""

from __future__ import annotations

import contextlib
import queue
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, Self

from tests.kernel.conftest import watch_of
from tests.truth import bench
from tests.truth.netns import loopback
from tests.truth.wire import wired_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future
    from pathlib import Path

    from tests.truth.netns import Net
    from tests.truth.scenario import Scenario
    from tests.truth.sockets import Made
    from tests.truth.wire import Wire

    Play = Callable[[Scenario, Net, Wire | None, bool], list[Made]]
    Case = tuple[Scenario, bool]

COUNT = 4


class Lane(NamedTuple):
    """Networks that one run has for itself, and a folder for its captures."""

    loopback: Net
    wired: Net
    wire: Wire
    folder: Path


class Lanes:
    """A few lanes before one tracer; `play` makes the connections of a case on a network."""

    def __init__(self, folder: Path, play: Play) -> None:
        """Make the networks and start the tracer."""
        self._play = play
        self._early: dict[Case, Future[bench.Run]] = {}
        self._free: queue.SimpleQueue[Lane] = queue.SimpleQueue()
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            lanes = [_lane(stack, folder / str(number)) for number in range(COUNT)]
            nets = (net for lane in lanes for net in (lane.loopback, lane.wired))
            self.watch = watch_of(*nets)
            stack.callback(self.watch.stop)
            self._pool = stack.enter_context(ThreadPoolExecutor(COUNT))
            self._stack = stack.pop_all()
        for lane in lanes:
            self._free.put(lane)

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for what was begun; stop the tracer, which must end with 0."""
        self._stack.close()

    def begin(self, cases: Iterable[Case]) -> None:
        """Run these in turn as lanes become free."""
        for case in cases:
            self._early[case] = self._pool.submit(self._run, *case)

    def run(self, entry: Scenario, *, server_first: bool) -> bench.Run:
        """Return the run that was begun, or another one when that was asked for before."""
        early = self._early.pop((entry, server_first), None)
        return early.result() if early is not None else self._run(entry, server_first)

    def _run(self, entry: Scenario, server_first: bool) -> bench.Run:
        lane = self._free.get()
        net, wire = (lane.wired, lane.wire) if entry.wired else (lane.loopback, None)
        try:
            return bench.run(
                net, lane.folder, lambda: self._play(entry, net, wire, server_first), self.watch
            )
        finally:
            self._free.put(lane)


def _lane(stack: contextlib.ExitStack, folder: Path) -> Lane:
    folder.mkdir()
    wired = stack.enter_context(wired_pair("lane"))
    return Lane(stack.enter_context(loopback("lane")), wired.net, wired.wire, folder)
