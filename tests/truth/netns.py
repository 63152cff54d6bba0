# SPDX-License-Identifier: Apache-2.0
"""Network namespaces, and the two-ended networks the traffic runs on.

A socket belongs to the namespace its creating thread was in, so one process can hold both
ends of a connection that crosses namespaces: `Namespace.socket` enters, creates, returns.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CLONE_NEWNET = 0x40000000
NETNS_DIR = Path("/run/netns")
IP = shutil.which("ip", path="/usr/sbin:/usr/bin:/sbin:/bin") or "ip"

# ESTABLISHED SYN_SENT SYN_RECV FIN_WAIT1 CLOSE_WAIT LAST_ACK CLOSING NEW_SYN_RECV
BUSY_STATES = frozenset({"01", "02", "03", "04", "08", "09", "0B", "0C"})
FIN_WAIT2_MINI = "05"
MINI_TIMER = "03:"

_libc = ctypes.CDLL(None, use_errno=True)
_serial = itertools.count()


def ip(*words: str) -> None:
    """Run `ip words...`; raises RuntimeError with its own message when it fails."""
    done = subprocess.run([IP, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def _setns(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET):
        errno = ctypes.get_errno()
        raise OSError(errno, f"setns: {os.strerror(errno)}")


@dataclass(frozen=True, slots=True)
class Namespace:
    """One named network namespace, held open by `fd`; `inum` is what the tracer calls netns."""

    name: str
    fd: int
    inum: int

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Move the calling thread into the namespace, and always back."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(self.fd)
            try:
                yield
            finally:
                _setns(home)
        finally:
            os.close(home)

    def socket(
        self,
        family: int = socket.AF_INET,
        kind: int = socket.SOCK_STREAM,
        protocol: int = 0,
    ) -> socket.socket:
        """Return a new socket that lives in this namespace."""
        with self.entered():
            return socket.socket(family, kind, protocol)

    def command(self, *words: str) -> list[str]:
        """Return the argv that runs `words` inside; `ip netns exec` execs, the pid is theirs."""
        return [IP, "netns", "exec", self.name, *words]

    def busy_sockets(self) -> int:
        """Count the TCP sockets in a state that packets will still change.

        Not counted: LISTEN, TIME_WAIT, and FIN_WAIT2, which may wait for its peer for a minute.
        """
        return sum(state in BUSY_STATES for state in self._states())

    def waiting_sockets(self) -> int:
        """Count the mini-sockets in FIN_WAIT2."""
        return sum(state == FIN_WAIT2_MINI for state in self._states(mini=True))

    def _states(self, *, mini: bool = False) -> list[str]:
        # A mini-socket shows by the kind of its timer, a full socket never has that one.
        with self.entered():
            tables = [Path("/proc/thread-self/net", name).read_text() for name in ("tcp", "tcp6")]
        rows = [line.split() for table in tables for line in table.splitlines()[1:]]
        return [row[3] for row in rows if not mini or row[5].startswith(MINI_TIMER)]

    def netstat(self) -> dict[str, int]:
        """Return the TcpExt counters of this namespace."""
        with self.entered():
            lines = Path("/proc/thread-self/net/netstat").read_text().splitlines()
        names, values = (line.split()[1:] for line in lines if line.startswith("TcpExt:"))
        return dict(zip(names, map(int, values), strict=True))

    def sysctl(self, key: str, value: str) -> str:
        """Write one net.* sysctl of this namespace (`key` with slashes, below net/).

        Returns the value it had.
        """
        with self.entered():
            path = Path("/proc/sys/net", key)
            before = path.read_text()
            path.write_text(value)
            return before


@contextlib.contextmanager
def namespace(label: str) -> Iterator[Namespace]:
    """Make a fresh namespace with lo up; removed at the end, whatever happened."""
    name = f"fw-{label}-{os.getpid()}-{next(_serial)}"
    ip("netns", "add", name)
    fd = -1
    try:
        ip("-n", name, "link", "set", "lo", "up")
        fd = os.open(NETNS_DIR / name, os.O_RDONLY | os.O_CLOEXEC)
        yield Namespace(name, fd, os.fstat(fd).st_ino)
    finally:
        if fd >= 0:
            os.close(fd)
        ip("netns", "del", name)


@dataclass(frozen=True, slots=True)
class Side:
    """One end of a network: where it lives, its address per family, its device."""

    ns: Namespace
    address: dict[int, str]
    device: str


@dataclass(frozen=True, slots=True)
class Net:
    """A two-ended network. On loopback both ends are the same namespace and device."""

    name: str
    client: Side
    server: Side
    inums: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        """Note the namespaces whose records belong to this network."""
        inums = frozenset({self.client.ns.inum, self.server.ns.inum})
        object.__setattr__(self, "inums", inums)


@contextlib.contextmanager
def loopback(label: str = "lo") -> Iterator[Net]:
    """Both ends on 127.0.0.1 and ::1 of one fresh namespace."""
    with namespace(label) as ns:
        side = Side(ns, {4: "127.0.0.1", 6: "::1"}, "lo")
        yield Net("loopback", side, side)


CLIENT_ADDRESS = {4: "10.99.0.1", 6: "fd00:99::1"}
SERVER_ADDRESS = {4: "10.99.0.2", 6: "fd00:99::2"}


def configure(ns: Namespace, device: str, address: dict[int, str]) -> None:
    """Give `device` its addresses (no duplicate address detection) and set it up."""
    ip("-n", ns.name, "addr", "add", f"{address[4]}/24", "dev", device)
    ip("-n", ns.name, "addr", "add", f"{address[6]}/64", "dev", device, "nodad")
    ip("-n", ns.name, "link", "set", device, "up")


@contextlib.contextmanager
def veth_pair(label: str = "veth") -> Iterator[Net]:
    """Two namespaces joined by a veth pair."""
    with namespace(f"{label}c") as client, namespace(f"{label}s") as server:
        ip(
            *("link", "add", "veth0", "netns", client.name, "type", "veth"),
            *("peer", "name", "veth0", "netns", server.name),
        )
        configure(client, "veth0", CLIENT_ADDRESS)
        configure(server, "veth0", SERVER_ADDRESS)
        yield Net(
            "veth",
            Side(client, CLIENT_ADDRESS, "veth0"),
            Side(server, SERVER_ADDRESS, "veth0"),
        )
