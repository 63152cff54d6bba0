# SPDX-License-Identifier: Apache-2.0
"""RSTs that belong to no connection, made for real."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from tests.truth.scenario import Stage
from tests.truth.sockets import DELAYED_ACK_S, read_eof

if TYPE_CHECKING:
    from tests.truth.netns import Namespace, Net
    from tests.truth.sockets import Flavour


def closed_port(ns: Namespace, family: int) -> int:
    """Return a port nobody listens on; it was free a moment ago."""
    with ns.socket(family) as sock:
        sock.bind(("", 0))
        return int(sock.getsockname()[1])


def knock(net: Net, flavour: Flavour, count: int) -> int:
    """Try to connect to a closed port of the server `count` times; return the port."""
    port = closed_port(net.server.ns, flavour.server_family)
    for _ in range(count):
        with (
            net.client.ns.socket(flavour.client_family) as sock,
            contextlib.suppress(ConnectionRefusedError),
        ):
            sock.connect((net.server.address[flavour.family], port))
    return port


def talk_to_mini_sockets(net: Net, flavour: Flavour, count: int) -> int:
    """Send data to orphans in FIN_WAIT2, `count` times; return the server's port.

    The server closes first; its mini-socket awaits the client's FIN and gets data.
    """
    with contextlib.closing(Stage(net, flavour, count, server_first=True)) as stage:
        pairs = stage.talked()
        for pair in pairs:
            pair.first.close()
            read_eof(pair.second)
        time.sleep(DELAYED_ACK_S)
        for pair in pairs:
            pair.second.sendall(b"too late")
            with contextlib.suppress(ConnectionResetError):
                pair.second.recv(1)
        return int(stage.opener.listener.getsockname()[1])
