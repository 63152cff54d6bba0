# SPDX-License-Identifier: Apache-2.0
"""Passive closes by how the ACK of the peer's FIN goes, and what a capture shows of it."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.truth.ends import End
from tests.truth.netns import ip
from tests.truth.packets import ACK, FIN
from tests.truth.sockets import DELAYED_ACK_S, close_at_eof, read_eof, read_exactly
from tests.truth.wire import Mode

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.truth.judge import Truth
    from tests.truth.netns import Side
    from tests.truth.scenario import Stage
    from tests.truth.sockets import Pair

STREAM_BYTES = 300_000
# What a segment on an Ethernet-sized device holds beside the timestamp option.
FRAME_BYTES = 1_448


@dataclass(frozen=True, slots=True)
class AckSeen:
    """When the ACK of the peer's FIN passed the device of the end that sent it."""

    after_fin_s: float
    after_last_s: float
    """After the last segment that had come from the peer."""


def ack_seen(truth: Truth) -> AckSeen | None:
    """Return what the capture shows at this end; None when there was no such ACK."""
    connection = truth.connection
    ends = (connection.client, connection.server)
    me, peer = ends if ends[0].address == truth.local else ends[::-1]
    first = End(peer, me)
    fin, acker = first.fin, first.fin_acker
    if fin is None or acker is None:
        return None
    before = max(s.time_s for s in peer.segments if s.index < acker.index)
    return AckSeen(acker.time_s - fin.time_s, acker.time_s - before)


def finish(pairs: list[Pair]) -> None:
    """Let the second end close when its delayed ACK must be over."""
    time.sleep(DELAYED_ACK_S)
    for pair in pairs:
        close_at_eof(pair.second)


def merged(stage: Stage) -> None:
    """The second end closes at once."""
    for pair in stage.quiet():
        pair.first.close()
        close_at_eof(pair.second)


def carried_by_data(stage: Stage) -> None:
    """The second end still has something to say."""
    for pair in stage.quiet():
        pair.first.shutdown(socket.SHUT_WR)
        read_eof(pair.second)
        pair.second.sendall(b"last words")
        time.sleep(0.001)
        pair.second.close()


def by_timer(stage: Stage) -> None:
    """Both had talked; the second end takes its time."""
    pairs = stage.quiet()
    for pair in pairs:
        pair.first.close()
    finish(pairs)


def by_tick(stage: Stage) -> None:
    """Nobody ever said a word."""
    pairs = stage.pairs()
    for pair in pairs:
        pair.first.close()
    finish(pairs)


def full_frame(stage: Stage) -> None:
    """A full-sized segment is unacknowledged when the FIN comes.

    The window must have grown, or __tcp_ack_snd_check() waits; and the second end must have
    answered, or it is in quick ACK mode.
    """
    pairs = stage.quiet()
    for pair in pairs:
        pair.first.sendall(bytes(STREAM_BYTES))
        read_exactly(pair.second, STREAM_BYTES)
        pair.exchange()
        pair.first.sendall(bytes(FRAME_BYTES))
        read_exactly(pair.second, FRAME_BYTES)
        pair.first.close()
    finish(pairs)


def repeated_fin(stage: Stage) -> None:
    """The FIN comes twice before the timer."""
    pairs, way = stage.quiet(), stage.from_first
    stage.wire.set_mode(Mode.HOLD, way)
    for pair in pairs:
        pair.first.close()
    stage.wire.wait_held(way, FIN, len(pairs))
    copies = stage.wire.held(way)
    stage.wire.set_mode(Mode.PASS, way)
    for packet in copies:
        stage.wire.inject(way, packet)
    finish(pairs)


def hole_filled(stage: Stage) -> None:
    """Data is lost, the FIN comes, and then the data again."""
    pairs, way = stage.quiet(), stage.from_first
    stage.wire.set_mode(Mode.HOLD, way)
    for pair in pairs:
        pair.first.sendall(b"lost at first")
    stage.wire.wait_held(way, ACK, len(pairs))
    late = stage.wire.held(way)
    for pair in pairs:
        pair.first.close()
    stage.wire.wait_held(way, FIN, len(pairs))
    fins = stage.wire.held(way)[len(late) :]
    for packet in [*fins, *late]:
        stage.wire.inject(way, packet)
    stage.wire.drop_held(way)
    stage.wire.set_mode(Mode.PASS, way)
    finish(pairs)


def set_quick_route(side: Side, *, quick: bool) -> None:
    """Let the route to the peer acknowledge at once, or no more."""
    net = side.address[4].rsplit(".", 1)[0] + ".0/24"
    words = ("route", "change", net, "dev", side.device, "src", side.address[4])
    ip("-n", side.ns.name, *words, "quickack", str(int(quick)))


FATES: dict[str, Callable[[Stage], None]] = {
    "merged": merged,
    "data": carried_by_data,
    "timer": by_timer,
    "tick": by_tick,
    "full_frame": full_frame,
    "repeated_fin": repeated_fin,
    "hole_filled": hole_filled,
    "quick_route": by_timer,
}
