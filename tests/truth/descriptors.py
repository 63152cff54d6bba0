# SPDX-License-Identifier: Apache-2.0
"""Closes of sockets whose descriptor went another way: to a process, a Unix socket, io_uring."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

import pytest

from tests.truth import uring
from tests.truth.abortive import RESET, await_reset
from tests.truth.process import assert_no_fin, close_all, finish, held_by_child
from tests.truth.scenario import Expect, Stage, scenario
from tests.truth.sockets import wait_readable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.truth.sockets import Pair

UNREAD = b"never read"


@scenario(first=Expect("abort", how="exit", cause="unread_data"), second=RESET)
def exit_with_unread_data(stage: Stage) -> None:
    """The process returns without reading all: the kernel sends a RST for it."""
    pairs = stage.talked()
    for pair in pairs:
        pair.second.sendall(UNREAD)
        wait_readable(pair.first, len(UNREAD))
    with held_by_child(pairs) as child:
        close_all(pairs)
        child.communicate(b"")
        for pair in pairs:
            await_reset(pair.second)


@scenario(first=Expect("active", None, None, "close"), second=Expect("passive"))
def handed_over(stage: Stage) -> None:
    """The descriptor crosses a Unix socket: the sender's close() is not the last one."""
    pairs = stage.talked()
    for pair in pairs:
        with sent(pair) as there:
            _, (descriptor,), _, _ = socket.recv_fds(there, 1, 1)
            os.close(descriptor)
    finish(pairs)


@contextlib.contextmanager
def sent(pair: Pair) -> Iterator[socket.socket]:
    """Leave the first end's descriptor only on its way to the Unix socket that is yielded."""
    here, there = socket.socketpair()
    with here, there:
        socket.send_fds(here, [b"x"], [pair.first.fileno()])
        pair.first.close()
        assert_no_fin(pair.second)
        yield there


@scenario(first=Expect("active", None, None, "close"), second=Expect("passive"))
def left_in_flight(stage: Stage) -> None:
    """Nobody takes the descriptor from the Unix socket: closing that closes it."""
    pairs = stage.talked()
    for pair in pairs:
        with sent(pair):
            pass
    finish(pairs)


@scenario(first=Expect("active", None, None, "kernel"), second=Expect("passive"))
def garbage_collected(stage: Stage) -> None:
    """A Unix socket that holds itself in its own queue takes the connection with it."""
    pairs = stage.talked()
    for pair in pairs:
        bury(pair)
    # The collector runs when some Unix socket is released while others are in flight.
    for end in socket.socketpair():
        end.close()
    finish(pairs)


def bury(pair: Pair) -> None:
    """Put the descriptor where nobody can get at it any more."""
    here, there = socket.socketpair()
    with here, there:
        socket.send_fds(here, [b"x"], [there.fileno(), pair.first.fileno()])
        pair.first.close()
        assert_no_fin(pair.second)


@scenario(first=Expect("active", None, None, "close"), second=Expect("passive"))
def closed_by_io_uring(stage: Stage) -> None:
    """IORING_OP_CLOSE."""
    pairs = stage.talked()
    try:
        with uring.ring() as ring:
            for pair in pairs:
                ring.close_descriptor(pair.first.detach())
            finish(pairs)
    except OSError as error:
        pytest.skip(f"io_uring does not work here: {error}")
