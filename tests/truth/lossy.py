# SPDX-License-Identifier: Apache-2.0
"""Two namespaces joined by a bridge in a third one, which loses, delays and reorders.

What spoils the packets sits between the ends, so each end's own capture shows all that it sent
and only what really came: each end has its own truth. tc-netem(8) is a kernel module that many
small hosts lack; `netem_missing` says so.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.truth.netns import (
    CLIENT_ADDRESS,
    SERVER_ADDRESS,
    Namespace,
    Net,
    Side,
    configure,
    ip,
    namespace,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

TC = shutil.which("tc", path="/usr/sbin:/usr/bin:/sbin:/bin") or "tc"
# Ethernet devices in the middle, towards each end.
TO_CLIENT, TO_SERVER = "client", "server"
TOWARDS = {TO_CLIENT: CLIENT_ADDRESS, TO_SERVER: SERVER_ADDRESS}
# Told to each other, never asked for: three questions that get lost end in "no route to host".
LLADDR = {TO_CLIENT: "02:00:00:00:00:01", TO_SERVER: "02:00:00:00:00:02"}


def netem_missing() -> str | None:
    """Return what this host lacks for a lossy net, None when nothing."""
    with namespace("probe") as probe:
        try:
            spoil(probe, "lo", "delay", "1ms")
            ip("-n", probe.name, "link", "add", "bridge", "type", "bridge")
        except (RuntimeError, OSError) as error:
            return str(error)
    return None


def spoil(ns: Namespace, device: str, *how: str) -> None:
    """Let `device` lose or delay what it sends: `how` are netem's words. Raises RuntimeError."""
    words = ("qdisc", "replace", "dev", device, "root", "netem", *how)
    done = subprocess.run(ns.command(TC, *words), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"tc {' '.join(words)}: {done.stderr.strip()}")


@contextlib.contextmanager
def lossy_net(*how: str) -> Iterator[Net]:
    """Join two namespaces through a third that treats packets of both ways like this."""
    with namespace("lossy") as middle, namespace("client") as client, namespace("server") as server:
        ip("-n", middle.name, "link", "add", "bridge", "type", "bridge")
        ip("-n", middle.name, "link", "set", "bridge", "up")
        for end, port in ((client, TO_CLIENT), (server, TO_SERVER)):
            _join(end, middle, port)
            spoil(middle, port, *how)
        yield Net(
            "lossy",
            Side(client, CLIENT_ADDRESS, "veth0"),
            Side(server, SERVER_ADDRESS, "veth0"),
        )


def _join(end: Namespace, middle: Namespace, port: str) -> None:
    ip(
        *("link", "add", "veth0", "address", LLADDR[port], "netns", end.name, "type", "veth"),
        *("peer", "name", port, "netns", middle.name),
    )
    configure(end, "veth0", TOWARDS[port])
    other = TO_SERVER if port == TO_CLIENT else TO_CLIENT
    for address in TOWARDS[other].values():
        words = ("neigh", "add", address, "lladdr", LLADDR[other], "dev", "veth0")
        ip("-n", end.name, *words, "nud", "permanent")
    ip("-n", middle.name, "link", "set", port, "master", "bridge", "up")
