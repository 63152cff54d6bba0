# SPDX-License-Identifier: Apache-2.0
"""Closes that few programs make, and that a counter or a flag could be misled by."""

from __future__ import annotations

import socket
import time

from tests.truth.packets import ACK, FIN, forged
from tests.truth.scenario import Expect, Stage, scenario
from tests.truth.sockets import DELAYED_ACK_S, read_eof
from tests.truth.wire import Mode


@scenario(
    first=Expect("active", "three_way", "fin", "close"),
    second=Expect("passive", "three_way", "fin", "close"),
)
def urgent_data_at_close(stage: Stage) -> None:
    """The last byte is urgent: reading to the end passes it by, and it is not left unread."""
    for pair in stage.talked():
        pair.start_clock()
        pair.first.send(b"last words!", socket.MSG_OOB)
        pair.first.close()
        read_eof(pair.second)
        pair.second.close()
        pair.stop_clock()


@scenario(
    first=Expect("active", "four_way", "pure", "close"),
    second=Expect("passive", "four_way", "pure", "close"),
    wired=True,
    blurred=True,
)
def keepalive_in_close_wait(stage: Stage) -> None:
    """A keep-alive of the peer's is answered in CLOSE_WAIT: a bare ACK, and not the FIN's."""
    pairs, wire, way = stage.quiet(), stage.wire, stage.from_first
    wire.set_mode(Mode.HOLD, way)
    for pair in pairs:
        pair.first.close()
    wire.wait_held(way, FIN, stage.count)
    fins = wire.held(way)
    wire.set_mode(Mode.PASS, way)
    for pair in pairs:
        read_eof(pair.second)
    time.sleep(DELAYED_ACK_S)
    for fin in fins:
        wire.inject(way, forged(fin, ACK, -1))
    wire.drain()
    for pair in pairs:
        pair.second.close()
