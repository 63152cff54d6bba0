# SPDX-License-Identifier: Apache-2.0
"""Sockets that stand still in each of TCP's twelve states, and what others count of them.

Most states last only as long as a segment is missing: the wire drops them all, once the
connections are where they should be.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import subprocess
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.truth.packets import FIN, SYN, tcp_flags
from tests.truth.wire import Mode, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.truth.netns import Namespace, Side
    from tests.truth.wire import Direction, WiredNet

SERVICE_PORT = 8080
SIMULTANEOUS_PORTS = (40001, 40002)
DATA = b"four waves"
# Names of ss by number in /proc/net/tcp.
STATES = {
    "ESTAB": 1,
    "SYN-SENT": 2,
    "SYN-RECV": 3,
    "FIN-WAIT-1": 4,
    "FIN-WAIT-2": 5,
    "TIME-WAIT": 6,
    "UNCONN": 7,
    "CLOSE-WAIT": 8,
    "LAST-ACK": 9,
    "LISTEN": 10,
    "CLOSING": 11,
}

Table = Counter[int]
"""Sockets by the number of their state in /proc/net/tcp."""


class Standing:
    """The sockets; `client` and `server` say what was made on each side.

    A key is (state, substate); FIN_WAIT2 mini-sockets are (6, 5).
    """

    def __init__(self, wired: WiredNet) -> None:
        self.wire = wired.wire
        self.near, self.far = wired.net.client, wired.net.server
        self.client: Counter[tuple[int, int]] = Counter()
        self.server: Counter[tuple[int, int]] = Counter()
        self.sockets: list[socket.socket] = []
        self.listener = self._keep(self.far.ns.socket())
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((self.far.address[4], SERVICE_PORT))
        self.listener.listen(64)
        self._note(self.server, 10)

    def make(self) -> None:
        """Bring every socket where it stays."""
        self._established(2)
        self._half_closed(3)
        self._orphaned(4)
        self._time_wait(5)
        self._in_close(6)
        last_ack, fin_wait1, closing = self._pairs(2), self._pairs(3), self._pairs(1)
        for client, _ in last_ack:
            client.shutdown(socket.SHUT_WR)
        self._note(self.client, 5, 2)
        self._note(self.server, 8, 2)
        self._settle()
        self.wire.set_mode(Mode.DROP)
        for _, server in last_ack:
            server.close()
        self._note(self.server, 8, -2)
        self._note(self.server, 9, 2)
        for client, _ in fin_wait1:
            client.close()
        self._note(self.client, 4, 3)
        self._note(self.server, 1, 3)
        self._closing(closing)
        self._handshakes()

    def _established(self, count: int) -> None:
        self._pairs(count)
        self._note(self.client, 1, count)
        self._note(self.server, 1, count)

    def _half_closed(self, count: int) -> None:
        for client, _ in self._pairs(count):
            client.sendall(DATA)
            client.shutdown(socket.SHUT_WR)
        self._note(self.client, 5, count)
        self._note(self.server, 8, count)

    # An orphan whose FIN was acknowledged is a mini-socket in FIN_WAIT2.
    def _orphaned(self, count: int) -> None:
        for client, _ in self._pairs(count):
            client.close()
        self.client[6, 5] += count
        self._note(self.server, 8, count)

    def _time_wait(self, count: int) -> None:
        for client, server in self._pairs(count):
            client.close()
            assert server.recv(1) == b""
            server.close()
        self._note(self.client, 6, count)

    def _in_close(self, count: int) -> None:
        for number in range(count):
            self._keep(self.near.ns.socket()).bind((self.near.address[4], 30000 + number))
        self._note(self.client, 7, count)

    # The FINs cross; the ACKs of both are lost.
    def _closing(self, pairs: list[tuple[socket.socket, socket.socket]]) -> None:
        ports = {client.getsockname()[1] for client, _ in pairs}
        self.wire.set_mode(Mode.HOLD)
        for client, server in pairs:
            client.close()
            server.close()
        self._deliver(FIN, len(pairs), len(pairs), ports)
        self._note(self.client, 11, len(pairs))
        self._note(self.server, 11, len(pairs))

    # One SYN answered by a lost SYN-ACK: a request. Two that cross: SYN_RECV at both ends.
    def _handshakes(self) -> None:
        self.wire.set_mode(Mode.HOLD)
        self._connect(self.near, None, (self.far.address[4], SERVICE_PORT))
        ports = SIMULTANEOUS_PORTS
        self._connect(self.near, ports[0], (self.far.address[4], ports[1]))
        self._connect(self.far, ports[1], (self.near.address[4], ports[0]))
        self._deliver(SYN, 2, 1, None)
        self._note(self.client, 2)
        self._note(self.server, 12)
        self._note(self.client, 3)
        self._note(self.server, 3)

    # Let these held packets through, and drop all others again: older ones are sent anew.
    def _deliver(self, flag: int, there: int, back: int, ports: set[int] | None) -> None:
        ways = (self.wire.to_server, self.wire.to_client)
        for way, count in zip(ways, (there, back), strict=True):
            wait_until(partial(self._has_held, way, flag, ports, count), "held packets")
        packets = [(way, self._held(way, flag, ports)) for way in ways]
        self.wire.set_mode(Mode.DROP)
        for way, held in packets:
            way.held.clear()
            for packet in held:
                self.wire.inject(way, packet)

    def _held(self, way: Direction, flag: int, ports: set[int] | None) -> list[bytes]:
        held = [packet for packet in self.wire.held(way) if tcp_flags(packet) & flag]
        return [one for one in held if ports is None or ports & set(ports_of(one))]

    def _has_held(self, way: Direction, flag: int, ports: set[int] | None, count: int) -> bool:
        return len(self._held(way, flag, ports)) >= count

    def _connect(self, side: Side, port: int | None, to: tuple[str, int]) -> None:
        sock = self._keep(side.ns.socket())
        sock.setblocking(False)
        if port:
            sock.bind((side.address[4], port))
        with contextlib.suppress(BlockingIOError):
            sock.connect(to)

    def _pairs(self, count: int) -> list[tuple[socket.socket, socket.socket]]:
        pairs = []
        for _ in range(count):
            client = self._keep(self.near.ns.socket())
            client.connect((self.far.address[4], SERVICE_PORT))
            pairs.append((client, self._keep(self.listener.accept()[0])))
        return pairs

    # All that was sent has arrived and was acknowledged.
    def _settle(self) -> None:
        for side, made in ((self.near, self.client), (self.far, self.server)):
            wait_until(partial(self._has, side, made), "the states made")

    # Pairs that have no other state yet are ESTABLISHED.
    def _has(self, side: Side, made: Counter[tuple[int, int]]) -> bool:
        now, wanted = proc_net_tcp(side.ns), Counter[int]()
        for (_, substate), count in made.items():
            wanted[substate] += count
        return all(now[state] == wanted[state] for state in (4, 5, 6, 8))

    def _note(self, counts: Counter[tuple[int, int]], state: int, count: int = 1) -> None:
        counts[state, state] += count

    def _keep(self, sock: socket.socket) -> socket.socket:
        self.sockets.append(sock)
        return sock

    def close(self) -> None:
        """Let all go; the segments are no longer dropped."""
        for sock in self.sockets:
            sock.close()
        self.wire.set_mode(Mode.PASS)


@contextlib.contextmanager
def standing(wired: WiredNet) -> Iterator[Standing]:
    """Sockets in every state on both sides of a wire."""
    made = Standing(wired)
    try:
        made.make()
        yield made
    finally:
        made.close()


def ports_of(packet: bytes) -> tuple[int, int]:
    """Return the ports of an IPv4 packet with a TCP segment."""
    start = (packet[0] & 15) * 4
    source, destination = struct.unpack_from(">HH", packet, start)
    return source, destination


def proc_net_tcp(ns: Namespace) -> Table:
    """Count /proc/net/tcp and tcp6: a request is 03, a mini-socket its substate."""
    with ns.entered():
        texts = [Path("/proc/thread-self/net", name).read_text() for name in ("tcp", "tcp6")]
    return Counter(int(line.split()[3], 16) for text in texts for line in text.splitlines()[1:])


def ss(ns: Namespace) -> Table:
    """Count `ss -tan`, whose sockets in CLOSE are not looked at."""
    done = subprocess.run(ns.command("ss", "-tanH"), capture_output=True, text=True, check=True)
    counts = Counter(STATES[line.split()[0]] for line in done.stdout.splitlines())
    del counts[7]
    return counts


def ss_summary(ns: Namespace) -> dict[str, int]:
    """Return what `ss -s` says of one namespace; the rest of its numbers is the whole host's.

    `estab` is the kernel's CurrEstab: ESTABLISHED and CLOSE_WAIT. `hashed`: the line of TCP.
    """
    done = subprocess.run(ns.command("ss", "-s"), capture_output=True, text=True, check=True)
    found = {
        name: int(number) for name, number in re.findall(r"(estab|timewait) (\d+)", done.stdout)
    }
    hashed = re.search(r"^TCP\t\s*(\d+)", done.stdout, re.MULTILINE)
    assert hashed is not None
    return {**found, "hashed": int(hashed[1])}


def sockstat(ns: Namespace) -> dict[str, int]:
    """Return the TCP line of /proc/net/sockstat."""
    with ns.entered():
        text = Path("/proc/thread-self/net/sockstat").read_text()
    words = next(line for line in text.splitlines() if line.startswith("TCP:")).split()[1:]
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))
