# SPDX-License-Identifier: Apache-2.0
"""One lane: judge the cases that stdin names on networks of its own, a line of JSON for each."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import traceback
from pathlib import Path

import pytest

from tests.kernel import kinds
from tests.kernel.conftest import watch_of
from tests.truth.mixed import SCENARIOS
from tests.truth.netns import loopback
from tests.truth.wire import wired_pair


class Lane:
    """Two networks before one tracer."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        """Make them; `stack` ends them."""
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fourwave-lane-")))
        net, wired = stack.enter_context(loopback("lane")), stack.enter_context(wired_pair("lane"))
        watch = watch_of(net, wired.net)
        stack.callback(watch.stop)
        self._on_loopback = kinds.Place(net, None, folder, watch)
        self._on_wire = kinds.Place(wired.net, wired.wire, folder, watch)

    def judge(self, name: str, *, server_first: bool) -> None:
        """Raise what judging this scenario raises."""
        entry = SCENARIOS[name]
        place = self._on_wire if entry.wired else self._on_loopback
        kinds.judge(entry, place, server_first=server_first)


def main() -> None:
    """Answer until stdin ends: {} where all is right, else why `skipped` or how it `failed`."""
    with contextlib.ExitStack() as stack:
        lane: Lane | None = None
        for line in sys.stdin:
            name, server_first = json.loads(line)
            answer = {}
            try:
                lane = lane or Lane(stack)
                lane.judge(name, server_first=server_first)
            except pytest.skip.Exception as skipped:
                answer = {"skipped": str(skipped)}
            except (Exception, pytest.fail.Exception):  # noqa: BLE001 - the one that asked fails
                answer = {"failed": traceback.format_exc()}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
