# SPDX-License-Identifier: Apache-2.0
"""Kinds that wait for timers of the kernel, judged side by side, while other tests run.

Each lane is a process: one that is forked, for a capture or a command, holds copies of all
descriptors of its parent until its exec. The close of a connection of another thread would then
not be the last one, and the FIN would come when the child lets go of it.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import pytest

from tests.kernel import kinds
from tests.kernel.conftest import watch_of
from tests.truth.mixed import SCENARIOS
from tests.truth.netns import loopback
from tests.truth.wire import wired_pair

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import Future

COUNT = 4


class Case(NamedTuple):
    """A scenario by name, and which end acts first."""

    name: str
    server_first: bool


class Lanes:
    """A few processes that judge cases in turn."""

    def __init__(self) -> None:
        """Start none yet."""
        self._early: dict[Case, Future[str | None]] = {}
        # Not forked: these processes must hold nothing of the tests beside them.
        self._pool = ProcessPoolExecutor(COUNT, multiprocessing.get_context("spawn"))

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for what has begun, and for the lanes' ends."""
        self._pool.shutdown(cancel_futures=True)

    def begin(self, cases: Iterable[Case]) -> None:
        """Judge these in turn as lanes become free."""
        for case in cases:
            self._early[case] = self._pool.submit(_judge, case)

    def judge(self, case: Case) -> None:
        """Raise what judging the case raised, begun before or now; skip where it cannot run."""
        early = self._early.pop(case, None)
        skipped = (early or self._pool.submit(_judge, case)).result()
        if skipped is not None:
            pytest.skip(skipped)


def _judge(case: Case) -> str | None:
    """Return why the case cannot run here; pytest's own exceptions cross no pipe."""
    entry = SCENARIOS[case.name]
    try:
        on_loopback, on_wire = _lane()
        place = on_wire if entry.wired else on_loopback
        kinds.judge(entry, place, server_first=case.server_first)
    except pytest.skip.Exception as skipped:
        return str(skipped)
    except pytest.fail.Exception as failed:
        raise AssertionError(str(failed)) from None
    return None


@functools.cache
def _lane() -> tuple[kinds.Place, kinds.Place]:
    """Make this process' networks, and a tracer that looks on until the process ends."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fourwave-lane-")))
        net, wired = stack.enter_context(loopback("lane")), stack.enter_context(wired_pair("lane"))
        watch = watch_of(net, wired.net)
        stack.callback(watch.stop)
        atexit.register(stack.pop_all().close)
    return (
        kinds.Place(net, None, folder, watch),
        kinds.Place(wired.net, wired.wire, folder, watch),
    )
