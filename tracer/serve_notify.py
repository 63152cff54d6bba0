# SPDX-License-Identifier: Apache-2.0
"""Tell the service manager: sd_notify(3), a datagram to the socket it names."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(state: str) -> None:
    """Send lines like READY=1 or WATCHDOG=1; without a service manager, nothing."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # a name in the abstract namespace
        address = "\0" + address[1:]
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as manager:
        manager.sendto(state.encode(), address)
