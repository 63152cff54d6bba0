# SPDX-License-Identifier: Apache-2.0
"""Segments that neither end sent, put on the wire between two real sockets."""

from __future__ import annotations

import contextlib

from tests.truth.abortive import RESET, RESET_ERRORS, await_reset
from tests.truth.packets import ACK, FIN, RST, forged
from tests.truth.scenario import Expect, Stage, scenario
from tests.truth.sockets import Pair, close_in_turn, read_eof, read_exactly
from tests.truth.wire import Mode

FAR_OUTSIDE_BYTES = 1 << 24
WORDS = b"words"


def hold_words(stage: Stage, pairs: list[Pair]) -> list[bytes]:
    """Let every first end say something, held on the wire; return the packets."""
    stage.wire.set_mode(Mode.HOLD, stage.from_first)
    for pair in pairs:
        pair.first.sendall(WORDS)
    stage.wire.wait_held(stage.from_first, ACK, stage.count)
    return stage.wire.held(stage.from_first)


@scenario(
    first=Expect("active", "three_way", "fin", "close"),
    second=Expect("passive", "three_way", "fin", "close"),
    wired=True,
)
def reset_outside_the_window(stage: Stage) -> None:
    """A RST far outside the window is only challenged; the connection lives and closes well."""
    pairs = stage.quiet()
    for packet in hold_words(stage, pairs):
        stage.wire.inject(stage.from_first, forged(packet, RST, FAR_OUTSIDE_BYTES))
    stage.wire.set_mode(Mode.PASS, stage.from_first)
    for pair in pairs:
        read_exactly(pair.second, len(WORDS))
        pair.exchange()  # the ACK of the words may be overdue by now
    close_in_turn(pairs)


@scenario(first=RESET, second=RESET, wired=True)
def reset_by_a_third_party(stage: Stage) -> None:
    """A RST nobody sent takes one end; the other end's next words meet no socket."""
    pairs = stage.quiet()
    for packet in hold_words(stage, pairs):
        stage.wire.inject(stage.from_first, forged(packet, RST, 0))
    for pair in pairs:
        await_reset(pair.second)
    stage.wire.set_mode(Mode.PASS, stage.from_first)
    for pair in pairs:
        with contextlib.suppress(*RESET_ERRORS):
            pair.first.recv(1)


@scenario(
    first=Expect("active", "three_way", "fin", "close"),
    second=Expect("passive", "three_way", "fin", "close"),
    wired=True,
)
def reset_of_time_wait(stage: Stage) -> None:
    """The close is done; a RST for the TIME_WAIT that is left changes no record."""
    pairs = stage.quiet()
    for pair in pairs:
        pair.start_clock()
        pair.first.close()
        read_eof(pair.second)
    wire = stage.wire
    wire.set_mode(Mode.HOLD, stage.to_first)
    for pair in pairs:
        pair.second.close()
        pair.stop_clock()
    wire.wait_held(stage.to_first, FIN, stage.count)
    fins = wire.held(stage.to_first)
    wire.set_mode(Mode.PASS, stage.to_first)
    wire.drain()
    for packet in fins:
        wire.inject(stage.to_first, forged(packet, RST, 1))
