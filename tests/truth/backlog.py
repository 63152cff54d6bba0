# SPDX-License-Identifier: Apache-2.0
"""Segments that wait in the backlog of a socket its process has locked."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.truth.packets import ACK, FIN
from tests.truth.scenario import Expect, Stage, scenario
from tests.truth.sockets import close_at_eof, wait_readable
from tests.truth.userfault import locked_in_recv
from tests.truth.wire import Mode, wait_until

if TYPE_CHECKING:
    from tests.truth.netns import Namespace
    from tests.truth.sockets import Pair

WORDS = b"to be read"


@scenario(
    first=Expect("active", None, None, "shutdown", time_wait=True),
    second=Expect("passive", "four_way", "pure", "close"),
    wired=True,
    blurred=True,
)
def coalesced_in_the_backlog(stage: Stage) -> None:
    """ACK and FIN come while the process has the lock: the backlog makes one skb of them.

    With time stamps they would have to be of one millisecond; with SACK the answer to a FIN that
    a slow host repeated bears an option, and is joined with neither.
    """
    with stage.sysctl("tcp_timestamps", 0), stage.sysctl("tcp_sack", 0):
        pairs = stage.quiet()
    wire, way = stage.wire, stage.to_first
    for pair in pairs:
        pair.second.sendall(WORDS)
        wait_readable(pair.first, len(WORDS))
    for pair in pairs:
        wire.drain()
        wire.set_mode(Mode.HOLD, way)
        pair.first.shutdown(socket.SHUT_WR)
        wire.wait_held(way, ACK, 1)
        close_at_eof(pair.second)
        wire.wait_held(way, FIN, 1)
        deliver_into_backlog(stage, pair)


def deliver_into_backlog(stage: Stage, pair: Pair) -> None:
    """Let what is held arrive while the first end is locked."""
    ns = stage.first_side.ns
    before = coalesced(ns)
    try:
        with locked_in_recv(pair.first):
            stage.wire.set_mode(Mode.PASS, stage.to_first)
            wait_until(lambda: coalesced(ns) > before, "the backlog to join segments")
    except TimeoutError:
        raise
    except OSError as error:
        pytest.skip(f"userfaultfd does not work here: {error}")
    close_at_eof(pair.first)


def coalesced(ns: Namespace) -> int:
    """Return TCPBacklogCoalesce of the namespace."""
    return ns.netstat()["TCPBacklogCoalesce"]
