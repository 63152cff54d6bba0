# SPDX-License-Identifier: Apache-2.0
"""Short connections as fast as one process can: `python -m tests.truth.load COUNT`.

Run it inside a namespace of its own. It prints `started` when it listens and `done` at the end.
"""

from __future__ import annotations

import socket
import sys

LISTENERS = 4
BACKLOG = 64


def short_connection(listener: socket.socket) -> None:
    """Connect, say one word, close both ends."""
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    client.sendall(b"word")
    client.close()
    server.recv(16)
    server.close()


def main(count: int) -> None:
    """Make `count` connections over a few listeners, so that TIME_WAIT leaves ports enough."""
    listeners = [socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) for _ in range(LISTENERS)]
    print("started", flush=True)
    for index in range(count):
        short_connection(listeners[index % LISTENERS])
    print("done", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
