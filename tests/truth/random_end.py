# SPDX-License-Identifier: Apache-2.0
"""One end of a random connection: does what its script says and remembers what it did.

Errors of the socket are part of the game (the peer may have reset it); an end goes on to its
last step whatever happens, so that every connection ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.truth.process import EXIT_CODE
from tests.truth.random_plan import Act
from tests.truth.sockets import disconnect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.truth.random_plan import Script

CHUNK_BYTES = 65_536
RECV_S = 0.05
READ_TO_EOF_S = 0.3
MEET_S = 5.0


@dataclass(slots=True)
class Facts:
    """What an end did to its socket, as far as a cause can depend on it."""

    read_bytes: int = 0
    linger_zero: bool = False
    disconnected: bool = False


class RandomEnd:
    """A connected socket and the script for it."""

    def __init__(self, sock: socket.socket, script: Script, meeting: threading.Barrier) -> None:
        """Take the socket over: it is closed when `run` returns."""
        self.facts = Facts()
        # A socket with a timeout waits for room, MSG_DONTWAIT or not.
        sock.settimeout(None)
        self._sock = sock
        self._script = script
        self._meeting = meeting
        self._doing: dict[Act, Callable[[int], None]] = {
            Act.WAIT: lambda us: time.sleep(us / 1e6),
            Act.MEET: self._meet,
            Act.SEND: lambda size: self._send(size, 0),
            Act.SEND_MORE: lambda size: self._send(size, socket.MSG_MORE),
            Act.RECV: self._recv,
            Act.READ_TO_EOF: self._read_to_eof,
            Act.NODELAY: lambda _: self._set(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
            Act.CORK: lambda _: self._set(socket.IPPROTO_TCP, socket.TCP_CORK, 1),
            Act.QUICKACK: lambda _: self._set(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1),
            Act.SMALL_BUFFERS: self._small_buffers,
            Act.LINGER: self._linger,
            Act.SHUT_RD: lambda _: self._sock.shutdown(socket.SHUT_RD),
            Act.SHUT_WR: lambda _: self._sock.shutdown(socket.SHUT_WR),
            Act.SHUT_RDWR: lambda _: self._sock.shutdown(socket.SHUT_RDWR),
            Act.DUP: self._dup,
            Act.DISCONNECT: self._disconnect,
            Act.CLOSE: lambda _: self._sock.close(),
            Act.SHARE_AND_EXIT: lambda _: self._share(subprocess.Popen.wait),
            Act.SHARE_AND_KILL: lambda _: self._share(subprocess.Popen.kill),
            Act.HAND_OVER: lambda _: self._hand_over(read=True),
            Act.LEAVE_IN_FLIGHT: lambda _: self._hand_over(read=False),
        }

    def run(self) -> None:
        """Do every step; an error of one step does not keep the next from being tried."""
        with contextlib.closing(self._sock):
            for step in self._script:
                with contextlib.suppress(OSError):
                    self._doing[step.act](step.amount)

    def _meet(self, _: int) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            self._meeting.wait(MEET_S)

    def _set(self, level: int, option: int, value: int) -> None:
        self._sock.setsockopt(level, option, value)

    def _send(self, size: int, flags: int) -> None:
        # What fits is sent: two ends that both wait for room would wait for ever.
        self._sock.send(b"x" * size, flags | socket.MSG_DONTWAIT)

    def _recv(self, size: int) -> None:
        if self._readable(RECV_S):
            self.facts.read_bytes += len(self._sock.recv(size, socket.MSG_DONTWAIT))

    def _read_to_eof(self, _: int) -> None:
        end = time.monotonic() + READ_TO_EOF_S
        while self._readable(end - time.monotonic()):
            got = len(self._sock.recv(CHUNK_BYTES, socket.MSG_DONTWAIT))
            self.facts.read_bytes += got
            if not got:
                return

    def _readable(self, timeout_s: float) -> bool:
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(max(0.0, timeout_s) * 1_000))

    def _small_buffers(self, size: int) -> None:
        self._set(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        self._set(socket.SOL_SOCKET, socket.SO_SNDBUF, size)

    def _linger(self, seconds: int) -> None:
        pair = struct.pack("ii", 1, seconds)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pair)
        self.facts.linger_zero = seconds == 0

    def _dup(self, _: int) -> None:
        self._sock, first = self._sock.dup(), self._sock
        first.close()

    def _disconnect(self, _: int) -> None:
        disconnect(self._sock)
        self.facts.disconnected = True

    def _share(self, ending: Callable[[subprocess.Popen[bytes]], object]) -> None:
        with self._held_by_child() as child:
            self._sock.close()
            assert child.stdin is not None
            if ending is subprocess.Popen.wait:
                child.stdin.close()
            ending(child)

    @contextlib.contextmanager
    def _held_by_child(self) -> Iterator[subprocess.Popen[bytes]]:
        command = ["/bin/sh", "-c", f"read _; exit {EXIT_CODE}"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, pass_fds=[self._sock.fileno()]
        ) as child:
            yield child

    def _hand_over(self, *, read: bool) -> None:
        here, there = socket.socketpair()
        with here, there:
            socket.send_fds(here, [b"x"], [self._sock.fileno()])
            self._sock.close()
            if read:
                _, descriptors, _, _ = socket.recv_fds(there, 1, 1)
                os.close(descriptors[0])
