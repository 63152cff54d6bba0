# SPDX-License-Identifier: Apache-2.0
"""A process that holds connections over loopback, both ends, until its stdin ends.

Usage: crowd.py CONNECTIONS NUMBER; every second connection is half closed, so that its other end
is in CLOSE_WAIT. Prints "ready" when all stand. NUMBER tells several such processes apart.
"""

from __future__ import annotations

import socket
import sys
from contextlib import ExitStack
from typing import Final

PORT: Final = 7


def main(connections: int, number: int) -> None:
    """Open, say so, wait."""
    address = (f"127.0.0.{1 + number}", PORT)
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(address, backlog=1024))
        for one in range(connections):
            client = stack.enter_context(socket.create_connection(address))
            stack.enter_context(listener.accept()[0])
            if one % 2:
                client.shutdown(socket.SHUT_WR)
        print("ready", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
