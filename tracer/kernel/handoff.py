# SPDX-License-Identifier: Apache-2.0
"""How the loader child hands its file descriptors to the resident: one message, SCM_RIGHTS.

The message is a JSON manifest of at most MESSAGE_MAX bytes; descriptors travel beside it in
the order of ``manifest["fds"]``. The kernel keeps programs attached as long as somebody holds
the link descriptors, so the loader may exit once the message is sent.
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any

__all__ = ("FDS_MAX", "MESSAGE_MAX", "receive", "send")

MESSAGE_MAX = 128 * 1024
FDS_MAX = 64


def send(channel: socket.socket, manifest: dict[str, Any], fds: dict[str, int]) -> None:
    """Send a manifest and the named descriptors.

    Raises OSError when the resident is gone, ValueError when it is too much for one message.
    """
    message = json.dumps({**manifest, "fds": list(fds)}).encode()
    if len(message) > MESSAGE_MAX or len(fds) > FDS_MAX:
        raise ValueError(f"manifest of {len(message)} bytes, {len(fds)} descriptors: too large")
    socket.send_fds(channel, [message], list(fds.values()))


def receive(channel: socket.socket) -> tuple[dict[str, Any], dict[str, int]] | None:
    """Return the manifest and the descriptors by name; None when the loader ended without a word.

    Raises OSError (TimeoutError after the channel's own timeout), and ValueError for anything
    that is not a manifest; what came with it is closed then.
    """
    message, fds, _flags, _address = socket.recv_fds(channel, MESSAGE_MAX, FDS_MAX)
    for fd in fds:
        os.set_inheritable(fd, False)  # recv_fds() passes no flags on, MSG_CMSG_CLOEXEC neither
    if not message:
        return None
    try:
        manifest = json.loads(message)
        return manifest, dict(zip(manifest.pop("fds"), fds, strict=True))
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        for fd in fds:
            os.close(fd)
        raise ValueError(f"not a manifest: {message[:80]!r}") from error
