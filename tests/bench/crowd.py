# SPDX-License-Identifier: Apache-2.0
"""A process that holds many connections over loopback, both ends, until its stdin ends.

Usage: crowd.py CONNECTIONS; every second one is half closed, so that its other end is in
CLOSE_WAIT. Prints "ready" when all stand.
"""

from __future__ import annotations

import resource
import socket
import sys
from contextlib import ExitStack
from typing import Final

PER_ADDRESS: Final = 20000
SPARE_FILES: Final = 64


def main(connections: int) -> None:
    """Open, say so, wait."""
    files = 2 * connections + SPARE_FILES
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("", 7), backlog=1024))
        for number in range(connections):
            address = f"127.0.0.{1 + number // PER_ADDRESS}"
            client = stack.enter_context(socket.create_connection((address, 7)))
            stack.enter_context(listener.accept()[0])
            if number % 2:
                client.shutdown(socket.SHUT_WR)
        print("ready", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]))
