# SPDX-License-Identifier: Apache-2.0
"""Kinds that wait for timers of the kernel, judged side by side, while other tests run."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import pytest

from tests.truth.watch import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import Future

COUNT = 4


class Case(NamedTuple):
    """A scenario by name, and which end acts first."""

    name: str
    server_first: bool


class Lane:
    """A process that judges (tests.kernel.lane).

    A process of its own, since one that is forked, for a capture or a command, holds copies of all
    descriptors of its parent until its exec: the close of another thread's connection would then
    not be the last one, and the FIN would come when the child lets go of it.
    """

    def __init__(self) -> None:
        """Start it."""
        command = [sys.executable, "-m", "tests.kernel.lane"]
        # In a session of its own, where Ctrl-C does not reach it: it ends when stdin does.
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def judge(self, case: Case) -> dict[str, Any]:
        """Return {} where all is right, else why it was `skipped` or how it `failed`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(case), file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """Let it end by itself: its tracer must end with 0."""
        self._process.communicate()
        assert self._process.returncode == 0


class Lanes:
    """A few lanes."""

    def __init__(self) -> None:
        """Start them."""
        self._early: dict[Case, Future[dict[str, Any]]] = {}
        self._free: queue.SimpleQueue[Lane] = queue.SimpleQueue()
        with contextlib.ExitStack() as stack:
            for _ in range(COUNT):
                lane = Lane()
                stack.callback(lane.close)
                self._free.put(lane)
            self._pool = stack.enter_context(ThreadPoolExecutor(COUNT))
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for what has begun, and for the lanes' ends."""
        self._pool.shutdown(cancel_futures=True)
        self._stack.close()

    def begin(self, cases: Iterable[Case]) -> None:
        """Judge these in turn as lanes become free."""
        for case in cases:
            self._early[case] = self._pool.submit(self._judge, case)

    def judge(self, case: Case) -> None:
        """Fail or skip as the case did, begun before or now."""
        early = self._early.pop(case, None) or self._pool.submit(self._judge, case)
        answer = early.result()
        if "skipped" in answer:
            pytest.skip(answer["skipped"])
        assert not answer, answer["failed"]

    def _judge(self, case: Case) -> dict[str, Any]:
        lane = self._free.get()
        try:
            return lane.judge(case)
        finally:
            self._free.put(lane)
