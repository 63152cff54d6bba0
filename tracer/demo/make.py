# SPDX-License-Identifier: Apache-2.0
"""How to make each kind of close; every maker returns the 4-tuples of the ends it made.

Both ends of a loopback connection live in this one process; whoever acts first
says so in its own name (`as_actor`), so that the trace shows a client and a server.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tracer.demo.tun import ACK, DEADLINE_S, FIN, PEER_ADDRESS, PEER_PORT, RST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tracer.demo.tun import TunPeer

    Ends = dict[str, tuple[str, int, str, int]]

LOOPBACK: Final = "127.0.0.1"
DELAYED_ACK_S: Final = 0.12  # past the 40 ms of TCP_DELACK_MIN
USER_TIMEOUT_MS: Final = 300
AF_UNSPEC: Final = 0
REQUEST: Final = b"GET / HTTP/1.0\r\n\r\n"
ANSWER: Final = b"HTTP/1.0 200 OK\r\n\r\nhello"


def as_actor(name: str) -> None:
    """Rename this process for what it does next."""
    Path("/proc/self/comm").write_text(name, encoding="ascii")


def connected() -> tuple[socket.socket, socket.socket]:
    """Return client and server of a loopback connection, after a request and its answer."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen()
        as_actor("client")
        client = socket.create_connection(listener.getsockname())
        as_actor("server")
        server, _ = listener.accept()
    client.sendall(REQUEST)
    server.recv(len(REQUEST))
    server.sendall(ANSWER)
    client.recv(len(ANSWER))
    return client, server


def ends_of(client: socket.socket) -> Ends:
    """Return the 4-tuple of either end, as each sees it."""
    (laddr, lport), (raddr, rport) = client.getsockname(), client.getpeername()
    return {"client": (laddr, lport, raddr, rport), "server": (raddr, rport, laddr, lport)}


@contextlib.contextmanager
def _pair() -> Iterator[tuple[socket.socket, socket.socket, Ends]]:
    client, server = connected()
    try:
        yield client, server, ends_of(client)
    finally:
        client.close()
        server.close()


def _close_as(name: str, end: socket.socket) -> None:
    as_actor(name)
    end.close()


def three_way() -> Ends:
    """The server closes as soon as it reads the end."""
    with _pair() as (client, server, ends):
        _close_as("client", client)
        server.recv(1)
        _close_as("server", server)
    return ends


def four_way() -> Ends:
    """The server closes long after its delayed ACK has fired."""
    with _pair() as (client, server, ends):
        _close_as("client", client)
        time.sleep(DELAYED_ACK_S)
        _close_as("server", server)
    return ends


def ack_on_data() -> Ends:
    """The server answers the FIN with data before its delayed ACK fires."""
    with _pair() as (client, server, ends):
        as_actor("client")
        client.shutdown(socket.SHUT_WR)
        as_actor("server")
        server.recv(1)
        server.sendall(b"one more thing")
        client.recv(100)
        _close_as("server", server)
        _close_as("client", client)
    return ends


def half_close() -> Ends:
    """The client shuts down one direction, and reads on until the server is done."""
    with _pair() as (client, server, ends):
        as_actor("client")
        client.shutdown(socket.SHUT_WR)
        as_actor("server")
        time.sleep(DELAYED_ACK_S)
        for _ in range(3):
            server.sendall(ANSWER)
        client.recv(3 * len(ANSWER))
        _close_as("server", server)
        _close_as("client", client)
    return ends


def unread_data() -> Ends:
    """The client closes with the server's data unread."""
    with _pair() as (client, server, ends):
        server.sendall(b"nobody reads this")
        _close_as("client", client)
        _close_as("server", server)
    return ends


def linger_zero() -> Ends:
    """The client closes with SO_LINGER on and no time."""
    with _pair() as (client, server, ends):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        _close_as("client", client)
        _close_as("server", server)
    return ends


def data_after_close() -> Ends:
    """The server sends before it has even acknowledged the client's FIN."""
    with _pair() as (client, server, ends):
        _close_as("client", client)
        as_actor("server")
        server.sendall(b"too late")
        _close_as("server", server)
    return ends


def disconnect() -> Ends:
    """The client calls connect(AF_UNSPEC)."""
    with _pair() as (client, server, ends):
        as_actor("client")
        nobody = struct.pack("=H14x", AF_UNSPEC)
        ctypes.CDLL(None).connect(client.fileno(), nobody, len(nobody))
        _close_as("server", server)
    return ends


def refused() -> Ends:
    """The client connects to a port that nobody listens on."""
    as_actor("client")
    with socket.socket() as unused, socket.socket() as client:
        unused.bind((LOOPBACK, 0))  # a port that is taken, and nobody listens on
        client.bind((LOOPBACK, 0))
        ends = {"client": (*client.getsockname(), *unused.getsockname())}
        client.connect_ex(unused.getsockname())
    return ends


# The child is the last to hold the client's end; `end` makes it die, given its pid and its wire.
def _dies(end: Callable[[int, socket.socket], None]) -> Ends:
    with _pair() as (client, server, ends):
        ours, theirs = socket.socketpair()
        child = os.fork()
        if child == 0:
            ours.close()
            server.close()
            _wait_and_exit(theirs)
        theirs.close()
        client.close()
        ours.recv(1)
        end(child, ours)
        os.waitpid(child, 0)
        ours.close()
        _close_as("server", server)
    return ends


# Says that the server's end is closed here, then waits for the other side to hang up.
def _wait_and_exit(wire: socket.socket) -> None:
    as_actor("client")
    wire.send(b"!")
    wire.recv(1)
    os._exit(3)


def process_exit() -> Ends:
    """The process that holds the client's end exits."""
    return _dies(lambda _, wire: wire.close())


def sigkill() -> Ends:
    """The process that holds the client's end is killed."""
    return _dies(lambda child, _: os.kill(child, signal.SIGKILL))


def _tun_ends(kernel_end: socket.socket) -> Ends:
    return {"client": (*kernel_end.getsockname(), PEER_ADDRESS, PEER_PORT)}


def simultaneous(peer: TunPeer) -> Ends:
    """The peer's FIN leaves before it has seen ours, and says so in its ACK."""
    as_actor("client")
    with peer.establish() as client:
        ends, before = _tun_ends(client), peer.seen
        client.close()
        peer.expect(FIN)
        peer.send(FIN | ACK, ack=before)
        peer.expect(ACK)
        peer.send(ACK)
    return ends


def timeout(peer: TunPeer) -> Ends:
    """The peer never acknowledges the client's data."""
    as_actor("client")
    with peer.establish() as client:
        ends = _tun_ends(client)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
        client.sendall(b"is anybody there?")
        client.settimeout(DEADLINE_S)
        with contextlib.suppress(OSError):
            client.recv(1)
    return ends


def peer_resets(peer: TunPeer) -> Ends:
    """The peer sends a RST into an idle connection."""
    as_actor("client")
    with peer.establish() as client:
        ends = _tun_ends(client)
        peer.send(RST | ACK)
        client.settimeout(DEADLINE_S)
        with contextlib.suppress(OSError):
            client.recv(1)
    return ends


def attempt_failed(peer: TunPeer) -> Ends:
    """The client closes while its SYN is unanswered."""
    as_actor("client")
    with peer.start_connect() as client:
        return _tun_ends(client)
