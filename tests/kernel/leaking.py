# SPDX-License-Identifier: Apache-2.0
"""Processes that do with connections what services are found to do, on command.

`python -m tests.kernel.leaking HABIT [PORT]` prints the port it listens on, then obeys a line at
a time: it answers each with one line when it is done, and ends when its input ends.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.truth.netns import Namespace

ROOT: Final = Path(__file__).resolve().parents[2]
KEPT: Final[list[object]] = []
PULSE_S: Final = 0.02
PR_SET_PDEATHSIG: Final = 1
PR_SET_NAME: Final = 15


class Service:
    """One such process, inside a namespace; ended with the block."""

    def __init__(self, ns: Namespace, habit: str, *arguments: object) -> None:
        words = [sys.executable, "-m", "tests.kernel.leaking", habit, *map(str, arguments)]
        self._process = subprocess.Popen(
            ns.command(*words), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid
        self.port = int(self._line())

    def tell(self, command: str) -> str:
        """Send a command and return its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the service ended with {self._process.wait()}")
        return line.strip()

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


class Cycle:
    """Keeps a socket alive until the collector comes."""

    def __init__(self, conn: socket.socket) -> None:
        self.conn, self.me = conn, self


def to_the_end(conn: socket.socket) -> None:
    """Read all there is."""
    while conn.recv(65_536):
        pass


def serve(handle: Callable[[socket.socket], None]) -> None:
    """Give each connection a thread."""
    server = socket.create_server(("127.0.0.1", 0), backlog=1024)
    say(server.getsockname()[1])

    def accept() -> None:
        while True:
            conn, _ = server.accept()
            threading.Thread(target=handle, args=(conn,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def forgets(conn: socket.socket) -> None:
    """Read to the end, and keep the socket."""
    to_the_end(conn)
    KEPT.append(conn)


def never_reads(conn: socket.socket) -> None:
    """Keep the socket."""
    KEPT.append(conn)


def leaves_to_gc(conn: socket.socket) -> None:
    """Read to the end, and leave the rest to the collector."""
    to_the_end(conn)
    Cycle(conn)


def keeps_sending(conn: socket.socket) -> None:
    """Go on after the peer has said all."""
    to_the_end(conn)
    with suppress(OSError):
        while True:
            conn.sendall(b"tick")
            time.sleep(PULSE_S)


HABITS: Final[dict[str, Callable[[socket.socket], None]]] = {
    "forgets": forgets,
    "never_reads": never_reads,
    "leaves_to_gc": leaves_to_gc,
    "keeps_sending": keeps_sending,
    "forks": forgets,
}


def preforks(workers: str) -> None:
    """Workers that share the listening socket, each with connections of its own to forget."""
    server = socket.create_server(("127.0.0.1", 0), backlog=1024)
    for _ in range(int(workers)):
        if os.fork() == 0:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            while True:
                forgets(server.accept()[0])
    KEPT.append(server)
    say(server.getsockname()[1])


def never_accepts(backlog: str = "64") -> None:
    """Listen and do nothing."""
    server = socket.create_server(("127.0.0.1", 0), backlog=int(backlog))
    KEPT.append(server)
    say(server.getsockname()[1])


def pools(port: str) -> None:
    """Connect, and use what was connected for nothing."""
    say(0)
    ADDRESS.append(("127.0.0.1", int(port)))


ADDRESS: Final[list[tuple[str, int]]] = []


def forgets_async() -> None:
    """Leak as an asyncio service would: read to the end, keep the writer."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        KEPT.append(writer)

    async def run() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        say(server.sockets[0].getsockname()[1])
        async with server:
            await server.serve_forever()

    threading.Thread(target=lambda: asyncio.run(run()), daemon=True).start()


def obey(line: str) -> None:
    """Do what the tests ask for while it runs."""
    word, *rest = line.split()
    if word == "collect":
        gc.collect()
    elif word == "close":  # the oldest of those kept
        for _ in range(min(int(rest[0]), len(KEPT))):
            kept = KEPT.pop(0)
            assert isinstance(kept, socket.socket)
            kept.close()
    elif word == "connect":
        KEPT.extend(socket.create_connection(ADDRESS[0]) for _ in range(int(rest[0])))
    elif word == "rename":
        ctypes.CDLL(None).prctl(PR_SET_NAME, bytes.fromhex(rest[0]))
    elif word == "fork":
        for _ in range(int(rest[0])):
            if os.fork() == 0:
                os.read(0, 1)  # until the input ends
                os._exit(0)
    say("done")


def say(word: object) -> None:
    """Answer the tests."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def main(habit: str, *arguments: str) -> None:
    """Take up the habit, and obey."""
    gc.disable()
    if habit in HABITS:
        serve(HABITS[habit])
    else:
        OTHERS[habit](*arguments)
    lines: IO[str] = sys.stdin
    for line in lines:
        obey(line)


OTHERS: Final[dict[str, Callable[..., None]]] = {
    "never_accepts": never_accepts,
    "preforks": preforks,
    "pools": pools,
    "forgets_async": forgets_async,
}

if __name__ == "__main__":
    main(*sys.argv[1:])
