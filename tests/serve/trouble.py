# SPDX-License-Identifier: Apache-2.0
"""What censuses are there to find, made on loopback and held for as long as a block lasts."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

FORGOTTEN: Final = 12
"""More than FourwaveCloseWaitLeak tolerates."""
HELD: Final = 3
TOO_MANY: Final = 6


@contextlib.contextmanager
def trouble() -> Iterator[None]:
    """Hold sockets forgotten in CLOSE_WAIT, connections to one destination, and a full queue."""
    with contextlib.ExitStack() as held:
        server = held.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
        for _ in range(FORGOTTEN):
            client = socket.create_connection(server.getsockname())
            held.enter_context(server.accept()[0])
            client.close()
        for _ in range(HELD):
            held.enter_context(socket.create_connection(server.getsockname()))
            held.enter_context(server.accept()[0])
        deaf = held.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1))
        for _ in range(TOO_MANY):
            held.enter_context(_begun(deaf.getsockname()))
        yield


# A SYN that is dropped comes again after one, three, seven seconds: each counts once more.
def _begun(address: tuple[str, int]) -> socket.socket:
    client = socket.socket()
    client.setblocking(False)
    client.connect_ex(address)
    return client
