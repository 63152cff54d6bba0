# SPDX-License-Identifier: Apache-2.0
"""Closes by processes that die, and sockets that two processes hold.

The children are plain programs that inherit the descriptor: nothing of Python runs in them.
"""

from __future__ import annotations

import contextlib
import select
import subprocess
from typing import TYPE_CHECKING

from tests.truth.abortive import RESET, await_reset
from tests.truth.scenario import Expect, Stage, scenario
from tests.truth.sockets import close_at_eof, wait_readable

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from tests.truth.sockets import Pair

EXIT_CODE = 3


@contextlib.contextmanager
def held_by_child(pairs: list[Pair]) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that holds every `first` end, too, and exits with 3 at the end of stdin."""
    child = subprocess.Popen(
        ["/bin/sh", "-c", f"read _; exit {EXIT_CODE}"],
        stdin=subprocess.PIPE,
        pass_fds=[pair.first.fileno() for pair in pairs],
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        if child.stdin is not None:
            child.stdin.close()


def close_all(pairs: list[Pair]) -> None:
    """Drop our own reference to every first end: no FIN, the child still has one."""
    for pair in pairs:
        pair.first.close()


def assert_no_fin(sock: socket.socket) -> None:
    """Raise AssertionError when the stream has ended."""
    readable, _, _ = select.select([sock], [], [], 0)
    assert not readable, "the first of two closes sent a FIN"


def finish(pairs: list[Pair]) -> None:
    """Answer the FINs."""
    for pair in pairs:
        close_at_eof(pair.second)


@scenario(first=Expect("active", None, None, "exit"), second=Expect("passive"))
def exit_of_process(stage: Stage) -> None:
    """The process returns without closing."""
    pairs = stage.talked()
    with held_by_child(pairs) as child:
        close_all(pairs)
        child.communicate(b"")
        finish(pairs)


@scenario(first=Expect("active", None, None, "signal:9"), second=Expect("passive"))
def killed_process(stage: Stage) -> None:
    """SIGKILL."""
    pairs = stage.talked()
    with held_by_child(pairs) as child:
        close_all(pairs)
        child.kill()
        child.wait()
        finish(pairs)


@scenario(first=Expect("abort", how="signal:9", cause="unread_data"), second=RESET)
def killed_with_unread_data(stage: Stage) -> None:
    """SIGKILL with bytes nobody read: the kernel sends a RST for the dead."""
    pairs = stage.talked()
    for pair in pairs:
        pair.second.sendall(b"never read")
        wait_readable(pair.first, len(b"never read"))
    with held_by_child(pairs) as child:
        close_all(pairs)
        child.kill()
        child.wait()
        for pair in pairs:
            await_reset(pair.second)


@scenario(first=Expect("active", None, None, "exit"), second=Expect("passive"))
def shared_socket(stage: Stage) -> None:
    """Two processes hold the socket: the first close sends nothing, the last one the FIN."""
    pairs = stage.talked()
    with held_by_child(pairs) as child:
        close_all(pairs)
        for pair in pairs:
            assert_no_fin(pair.second)
        child.communicate(b"")
        finish(pairs)
