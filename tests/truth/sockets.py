# SPDX-License-Identifier: Apache-2.0
"""Opening connections with both ends in hand, in every mix of address families."""

from __future__ import annotations

import ctypes
import enum
import fcntl
import os
import socket
import struct
import termios
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.pace import allowed_s
from tests.truth.wire import wait_until

if TYPE_CHECKING:
    from tests.truth.netns import Net

TIMEOUT_S = allowed_s(20.0)
BACKLOG = 1024
# Longer than the 40 ms of the delayed ACK (44 ms at HZ=250), with room for a busy host.
DELAYED_ACK_S = 0.08
# A merge needs the second close() well inside those 40 ms.
TIMELY_S = 0.03
LINGER_ZERO = struct.pack("ii", 1, 0)
# struct tcp_info: __u32 tcpi_unacked; on a listener, the length of its accept queue.
TCPI_UNACKED = slice(24, 28)

SIOCOUTQNSD = 0x894B

_libc = ctypes.CDLL(None, use_errno=True)


class TcpState(enum.IntEnum):
    """include/net/tcp_states.h, the states that scenarios wait for."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11


class Flavour(enum.Enum):
    """Which address families the two sockets and the packets have."""

    V4 = (4, socket.AF_INET, socket.AF_INET)
    V6 = (6, socket.AF_INET6, socket.AF_INET6)
    MAPPED_SERVER = (4, socket.AF_INET, socket.AF_INET6)
    MAPPED_CLIENT = (4, socket.AF_INET6, socket.AF_INET)

    @property
    def family(self) -> int:
        """4 or 6: what the packets are."""
        return self.value[0]

    @property
    def client_family(self) -> int:
        """AF_* of the client's socket."""
        return self.value[1]

    @property
    def server_family(self) -> int:
        """AF_* of the server's socket."""
        return self.value[2]


Address = tuple[str, int]


def plain(address: tuple[object, ...]) -> Address:
    """Return (ip, port) of a socket name, IPv4-mapped written as IPv4."""
    host, port = str(address[0]), address[1]
    assert isinstance(port, int)
    return host.removeprefix("::ffff:"), port


@dataclass(frozen=True, slots=True)
class Made:
    """One connection that was made: its addresses, and whether all went as fast as meant.

    `ends` is how many sockets will close: 1 when nobody listened.
    """

    family: int
    client: Address
    server: Address
    timely: bool = True
    ends: int = 2


class Pair:
    """Both ends of one established connection; `first` is the end that acts first."""

    def __init__(
        self,
        client: socket.socket,
        server: socket.socket,
        names: tuple[Address, Address],
        family: int,
        server_first: bool,
    ) -> None:
        """`names`: of the client's end and of the server's."""
        self.client, self.server = client, server
        self.first, self.second = (server, client) if server_first else (client, server)
        self._family = family
        self._names = names
        self._first_close_s = 0.0
        self._timely = True

    @property
    def made(self) -> Made:
        """What a judge needs to find this connection."""
        return Made(self._family, *self._names, self._timely)

    def exchange(self, size: int = 4) -> None:
        """Send `size` bytes there and back, so that the delayed ACK has its 40 ms."""
        self.first.sendall(b"q" * size)
        read_exactly(self.second, size)
        self.second.sendall(b"a" * size)
        read_exactly(self.first, size)

    def start_clock(self) -> None:
        """Note when the first FIN was asked for."""
        self._first_close_s = time.monotonic()

    def stop_clock(self) -> None:
        """Judge whether the answer came well before the delayed ACK."""
        self._timely = self._timely and time.monotonic() - self._first_close_s < TIMELY_S

    def close(self) -> None:
        """Close what is still open."""
        self.first.close()
        self.second.close()


def close_in_turn(pairs: list[Pair]) -> None:
    """Let the first end of each close, and the second one at once: its FIN holds the ACK."""
    for pair in pairs:
        pair.start_clock()
        pair.first.close()
        close_at_eof(pair.second)
        pair.stop_clock()


def read_exactly(sock: socket.socket, size: int) -> None:
    """Read `size` bytes; raises AssertionError when the stream ends before."""
    while size:
        got = len(sock.recv(min(size, 65536)))
        assert got, "the stream ended early"
        size -= got


def read_eof(sock: socket.socket) -> None:
    """Read until the peer's FIN has been read too."""
    while sock.recv(65536):
        pass


def close_at_eof(sock: socket.socket) -> None:
    """Read until the peer's FIN has been read too, then close."""
    read_eof(sock)
    sock.close()


def set_linger_zero(sock: socket.socket) -> None:
    """Make the next close() send a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)


def close_with_reset(sock: socket.socket) -> None:
    """Close with SO_LINGER 0."""
    set_linger_zero(sock)
    sock.close()


def disconnect(sock: socket.socket) -> None:
    """connect(AF_UNSPEC): take the connection away from under the socket."""
    if _libc.connect(sock.fileno(), struct.pack("H14x", socket.AF_UNSPEC), 16):
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))


def state(sock: socket.socket) -> TcpState:
    """Return the TCP state of a socket."""
    return TcpState(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0])


def wait_state(sock: socket.socket, wanted: TcpState) -> None:
    """Return once the socket is in this state."""
    wait_until(lambda: state(sock) is wanted, f"{wanted.name}")


def readable_bytes(sock: socket.socket) -> int:
    """How many bytes a recv() would find."""
    answer = fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(4))
    return int.from_bytes(answer, "little")


def unacked_bytes(sock: socket.socket) -> int:
    """How many bytes were given to send and are not acknowledged, sent or not."""
    answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    return int.from_bytes(answer, "little")


def unsent_bytes(sock: socket.socket) -> int:
    """How many bytes wait to be sent for the first time."""
    answer = fcntl.ioctl(sock.fileno(), SIOCOUTQNSD, bytes(4))
    return int.from_bytes(answer, "little")


def wait_readable(sock: socket.socket, size: int) -> None:
    """Return once `size` bytes have arrived, without reading them."""
    wait_until(lambda: readable_bytes(sock) >= size, f"{size} bytes to arrive")


def accept_queue(listener: socket.socket) -> int:
    """How many established children nobody has accepted."""
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128)
    return int.from_bytes(info[TCPI_UNACKED], "little")


class Opener:
    """Makes connections of one flavour across one network, on a listener of its own."""

    def __init__(self, net: Net, flavour: Flavour) -> None:
        """Listen on a port the kernel chooses."""
        self.net, self.flavour = net, flavour
        self.listener = net.server.ns.socket(flavour.server_family)
        self.listener.settimeout(TIMEOUT_S)
        self.listener.bind(("" if flavour is not Flavour.V6 else "::", 0))
        self.listener.listen(BACKLOG)

    @property
    def target(self) -> Address:
        """Where a client connects to, in the notation of its own family."""
        host = self.net.server.address[self.flavour.family]
        if self.flavour is Flavour.MAPPED_CLIENT:
            host = f"::ffff:{host}"
        return host, self.listener.getsockname()[1]

    def client(self) -> socket.socket:
        """Return an unconnected client socket."""
        sock = self.net.client.ns.socket(self.flavour.client_family)
        sock.settimeout(TIMEOUT_S)
        return sock

    def connect(self) -> socket.socket:
        """Connect one client; nobody accepts."""
        client = self.client()
        client.connect(self.target)
        return client
