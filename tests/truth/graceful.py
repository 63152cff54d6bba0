# SPDX-License-Identifier: Apache-2.0
"""Closes in which both ends send a FIN."""

from __future__ import annotations

import os
import socket
import time

from tests.truth.packets import FIN
from tests.truth.scenario import Expect, Stage, scenario
from tests.truth.sockets import (
    DELAYED_ACK_S,
    close_at_eof,
    close_in_turn,
    read_eof,
    read_exactly,
    wait_readable,
)
from tests.truth.wire import Mode

STREAM_BYTES = 300_000
CHUNK_BYTES = 30_000
PAUSES, PAUSE_S = 4, 0.3


@scenario(
    first=Expect("active", "three_way", "fin", "close"),
    second=Expect("passive", "three_way", "fin", "close"),
)
def three_way(stage: Stage) -> None:
    """FIN, FIN+ACK, ACK: the second end closes before its delayed ACK."""
    close_in_turn(stage.talked())


@scenario(
    first=Expect("active", "three_way", "fin", "shutdown"),
    second=Expect("passive", "three_way", "fin", "close"),
)
def three_way_with_last_words(stage: Stage) -> None:
    """The second FIN rides on data: one segment holds the ACK, the last bytes and the FIN."""
    for pair in stage.talked():
        pair.start_clock()
        pair.first.shutdown(socket.SHUT_WR)
        read_eof(pair.second)
        pair.second.send(b"bye", socket.MSG_MORE)
        pair.second.close()
        pair.stop_clock()
        close_at_eof(pair.first)


@scenario(
    first=Expect("active", "three_way", "fin", "shutdown"),
    second=Expect("passive", "three_way", "fin", "close"),
)
def shutdown_then_close(stage: Stage) -> None:
    """shutdown(SHUT_RDWR) sends the FIN, the close() afterwards sends nothing."""
    for pair in stage.talked():
        pair.start_clock()
        pair.first.shutdown(socket.SHUT_RDWR)
        close_at_eof(pair.second)
        pair.stop_clock()
        pair.first.close()


@scenario(
    first=Expect("active", "four_way", "pure", "close"),
    second=Expect("passive", "four_way", "pure", "close"),
)
def four_way(stage: Stage) -> None:
    """FIN, ACK, FIN, ACK: the second end closes after its delayed ACK went out."""
    pairs = stage.talked()
    for pair in pairs:
        pair.first.close()
    time.sleep(DELAYED_ACK_S)
    for pair in pairs:
        close_at_eof(pair.second)


@scenario(
    first=Expect("active", "four_way", "pure", "shutdown"),
    second=Expect("passive", "four_way", "pure", "close"),
)
def four_way_held(stage: Stage) -> None:
    """The same, but the first end still holds its socket: FIN_WAIT2 is a full socket."""
    pairs = stage.talked()
    for pair in pairs:
        pair.first.shutdown(socket.SHUT_WR)
    time.sleep(DELAYED_ACK_S)
    for pair in pairs:
        pair.second.close()
        close_at_eof(pair.first)


@scenario(
    first=Expect("active", "four_way", "data", "shutdown"),
    second=Expect("passive", "four_way", "data", "close"),
)
def four_way_ack_on_data(stage: Stage) -> None:
    """The ACK of the first FIN rides on an answer; the second FIN comes later, alone."""
    pairs = stage.talked()
    for pair in pairs:
        pair.start_clock()
        pair.first.shutdown(socket.SHUT_WR)
        read_eof(pair.second)
        pair.second.sendall(b"answer")
        pair.stop_clock()
    time.sleep(DELAYED_ACK_S)
    for pair in pairs:
        pair.second.close()
        close_at_eof(pair.first)


@scenario(
    first=Expect("active", "four_way", "data", "shutdown"),
    second=Expect("passive", "four_way", "data", "close"),
)
def answer_and_close(stage: Stage) -> None:
    """Answer after the EOF and close at once: the ACK rides on the data, not on the FIN."""
    for pair in stage.talked():
        pair.start_clock()
        pair.first.shutdown(socket.SHUT_WR)
        read_eof(pair.second)
        pair.second.sendall(b"answer")
        pair.second.close()
        pair.stop_clock()
        close_at_eof(pair.first)


@scenario(
    first=Expect("active", "four_way", None, "shutdown"),
    second=Expect("passive", "four_way", None, "close"),
)
def half_close_stream(stage: Stage) -> None:
    """The first end closes one direction; the other one goes on streaming through it."""
    for pair in stage.pairs():
        pair.first.sendall(b"give me all")
        pair.first.shutdown(socket.SHUT_WR)
        read_eof(pair.second)
        for _ in range(STREAM_BYTES // CHUNK_BYTES):
            pair.second.sendall(b"s" * CHUNK_BYTES)
            read_exactly(pair.first, CHUNK_BYTES)
        pair.second.close()
        close_at_eof(pair.first)


@scenario(
    first=Expect("active", "four_way", None, "shutdown"),
    second=Expect("passive", "four_way", None, "close"),
    mixable=False,
    waits=True,
)
def half_close_for_long(stage: Stage) -> None:
    """The same with pauses much longer than any delayed ACK: FIN_WAIT2 lasts a second and more."""
    pairs = stage.talked()
    for pair in pairs:
        pair.first.shutdown(socket.SHUT_WR)
    for _ in range(PAUSES):
        for pair in pairs:
            pair.second.sendall(b"s" * CHUNK_BYTES)
            read_exactly(pair.first, CHUNK_BYTES)
        time.sleep(PAUSE_S)
    for pair in pairs:
        close_at_eof(pair.second)
        close_at_eof(pair.first)


@scenario(
    first=Expect("active", "four_way", "data", "shutdown"),
    second=Expect("passive", "four_way", "data", "close"),
)
def unread_at_the_end(stage: Stage) -> None:
    """The first end never reads the answer: it went to TIME_WAIT before its close()."""
    pairs = stage.talked()
    for pair in pairs:
        pair.start_clock()
        pair.first.shutdown(socket.SHUT_WR)
        read_eof(pair.second)
        pair.second.sendall(b"answer")
        pair.stop_clock()
        wait_readable(pair.first, len(b"answer"))
    time.sleep(DELAYED_ACK_S)
    for pair in pairs:
        pair.second.close()
    time.sleep(DELAYED_ACK_S)
    for pair in pairs:
        pair.first.close()


@scenario(
    first=Expect("active", None, None, "close"),
    second=Expect("passive", None, None, "close"),
)
def silent(stage: Stage) -> None:
    """No byte was ever exchanged: the delayed ACK has one timer tick only."""
    for pair in stage.pairs():
        pair.first.close()
        close_at_eof(pair.second)


@scenario(
    first=Expect("active", None, None, "close"),
    second=Expect("passive", None, None, "close"),
)
def duplicated_descriptor(stage: Stage) -> None:
    """Closing one of two descriptors sends no FIN; the last one does."""
    for pair in stage.talked():
        twin = os.dup(pair.first.fileno())
        pair.first.close()
        os.close(twin)
        close_at_eof(pair.second)


@scenario(
    first=Expect("simultaneous", "simultaneous"),
    second=Expect("simultaneous", "simultaneous"),
    wired=True,
)
def simultaneous(stage: Stage) -> None:
    """The FINs cross on the wire."""
    pairs = stage.quiet()
    wire = stage.wire
    wire.set_mode(Mode.HOLD)
    for pair in pairs:
        pair.first.close()
        pair.second.close()
    for way in (wire.to_server, wire.to_client):
        wire.wait_held(way, FIN, stage.count)
    wire.set_mode(Mode.PASS)


@scenario(
    first=Expect("simultaneous", "simultaneous", None, "shutdown"),
    second=Expect("simultaneous", "simultaneous", None, "close"),
    wired=True,
)
def simultaneous_half_held(stage: Stage) -> None:
    """The FINs cross while one end still holds its socket."""
    pairs = stage.quiet()
    wire = stage.wire
    wire.set_mode(Mode.HOLD)
    for pair in pairs:
        pair.first.shutdown(socket.SHUT_WR)
        pair.second.close()
    for way in (wire.to_server, wire.to_client):
        wire.wait_held(way, FIN, stage.count)
    wire.set_mode(Mode.PASS)
    for pair in pairs:
        close_at_eof(pair.first)


@scenario(
    first=Expect("active", "four_way", "pure", "close"),
    second=Expect("passive", "four_way", "pure", "close"),
    wired=True,
)
def fin_repeated(stage: Stage) -> None:
    """The first FIN is lost and repeated; the repeated one is acknowledged at once or delayed."""
    pairs = stage.quiet()
    way = stage.from_first
    stage.wire.set_mode(Mode.DROP, way)
    seen = way.dropped
    for pair in pairs:
        pair.first.close()
    stage.wire.wait_dropped(way, seen + stage.count)
    stage.wire.set_mode(Mode.PASS, way)
    for pair in pairs:
        read_eof(pair.second)
    time.sleep(DELAYED_ACK_S)
    for pair in pairs:
        pair.second.close()
