# SPDX-License-Identifier: Apache-2.0
"""The process that makes the closes, in a network namespace of its own where that is permitted.

Says in one JSON line where it lives, waits for a line on standard input, then
makes one scenario after the other and says after each, in one line, which
connections it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from tracer.demo import netns
from tracer.demo.scenarios import SCENARIOS
from tracer.demo.tun import TunPeer

if TYPE_CHECKING:
    from tracer.demo.scenarios import Scenario


def main() -> None:
    """Say where, wait, act."""
    _hurry()
    own = netns.enter_new()
    if own:
        netns.bring_up("lo")
    _say({"netns": netns.inum(), "own": own})
    sys.stdin.readline()
    with contextlib.ExitStack() as stack:
        peer, obstacle = _open_peer(stack, own=own)
        for scenario in SCENARIOS:
            _say({"scenario": scenario.name, **_play(scenario, peer, obstacle)})


# On a busy host, what must happen before a delayed ACK of 40 ms should.
def _hurry() -> None:
    with contextlib.suppress(OSError):
        os.nice(-10)


# Outside a namespace of our own no interface is made: the host's network stays as it is.
def _open_peer(stack: contextlib.ExitStack, *, own: bool) -> tuple[TunPeer | None, str]:
    if not own:
        return None, "needs a network namespace of its own (CAP_SYS_ADMIN)"
    try:
        return stack.enter_context(TunPeer()), ""
    except OSError as error:
        return None, f"needs /dev/net/tun: {error.strerror}"


def _play(scenario: Scenario, peer: TunPeer | None, obstacle: str) -> dict[str, Any]:
    if scenario.needs_tun and peer is None:
        return {"skipped": obstacle}
    try:
        return {"ends": scenario.maker(peer) if scenario.needs_tun else scenario.maker()}  # type: ignore[arg-type, call-arg]
    except OSError as error:
        return {"failed": str(error)}


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
