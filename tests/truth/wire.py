# SPDX-License-Identifier: Apache-2.0
"""A wire under control: two namespaces joined by TUN devices and a thread that relays.

Both ends are real Linux sockets; the wire decides when and whether a packet arrives. That
makes what is a race elsewhere (a simultaneous close, data that crosses a FIN) certain, and a
dead path needs no firewall.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import os
import select
import struct
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.pace import allowed_s
from tests.truth.netns import (
    CLIENT_ADDRESS,
    SERVER_ADDRESS,
    Namespace,
    Net,
    Side,
    configure,
    namespace,
)
from tests.truth.packets import flow, tcp_flags

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TUNSETIFF = 0x400454CA
IFF_TUN_NO_PI = 0x1001
PACKET_BYTES = 65536
DEADLINE_S = allowed_s(10.0)
RELAY_TURN_S = 0.0002


class Mode(enum.Enum):
    """What happens to a packet that enters one direction."""

    PASS = enum.auto()
    HOLD = enum.auto()
    DROP = enum.auto()


@dataclass(slots=True)
class Direction:
    """One way across: read from `source`, written to `target`."""

    source: int
    target: int
    mode: Mode = Mode.PASS
    held: list[bytes] = field(default_factory=list)
    dropped: int = 0


class Wire:
    """The relay. `to_server` and `to_client` are steered on their own."""

    def __init__(self, client_fd: int, server_fd: int) -> None:
        """Take the two TUN descriptors; relaying begins with `run`."""
        self.to_server = Direction(client_fd, server_fd)
        self.to_client = Direction(server_fd, client_fd)
        self._changed = threading.Condition()
        self._stop_r, self._stop_w = os.pipe()

    def run(self) -> None:
        """Relay until `stop`."""
        ways = {way.source: way for way in (self.to_server, self.to_client)}
        while True:
            ready, _, _ = select.select([*ways, self._stop_r], [], [])
            if self._stop_r in ready:
                return
            for fd in ready:
                self._relay(ways[fd], os.read(fd, PACKET_BYTES))

    def _relay(self, way: Direction, packet: bytes) -> None:
        with self._changed:
            if way.mode is Mode.PASS:
                os.write(way.target, packet)
            elif way.mode is Mode.HOLD:
                way.held.append(packet)
            else:
                way.dropped += 1
            self._changed.notify_all()

    def set_mode(self, mode: Mode, *ways: Direction) -> None:
        """Switch `ways` (both when none is named); PASS also delivers what was held, in order."""
        with self._changed:
            for way in ways or (self.to_server, self.to_client):
                way.mode = mode
                if mode is Mode.PASS:
                    for packet in way.held:
                        os.write(way.target, packet)
                    way.held.clear()

    def wait_held(self, way: Direction, flag: int, count: int) -> None:
        """Return once packets of `count` connections with `flag` are held. Raises TimeoutError.

        One that is sent again while the others are awaited is still one.
        """

        def enough() -> bool:
            return len({flow(packet) for packet in way.held if tcp_flags(packet) & flag}) >= count

        self._wait(enough, f"{count} held connections with flag {flag:#x}")

    def held(self, way: Direction) -> list[bytes]:
        """Return copies of what is being held."""
        with self._changed:
            return list(way.held)

    def drop_held(self, way: Direction) -> None:
        """Throw away what is being held."""
        with self._changed:
            way.held.clear()

    def wait_dropped(self, way: Direction, count: int) -> None:
        """Return once `way.dropped` is `count`; raises TimeoutError after 10 s."""
        self._wait(lambda: way.dropped >= count, f"{count} dropped packets")

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        with self._changed:
            if not self._changed.wait_for(condition, DEADLINE_S):
                raise TimeoutError(f"the wire never saw {what}")

    def discard(self, *ways: Direction) -> None:
        """Throw away what `ways` (both when none is named) hold."""
        with self._changed:
            for way in ways or (self.to_server, self.to_client):
                way.held.clear()

    def drain(self) -> None:
        """Return once the relay has taken everything that both devices had for it."""
        sources = [way.source for way in (self.to_server, self.to_client)]
        wait_until(lambda: not select.select(sources, [], [], 0)[0], "an empty wire")
        with self._changed:
            pass

    def inject(self, way: Direction, packet: bytes) -> None:
        """Deliver a packet nobody sent."""
        os.write(way.target, packet)

    def stop(self) -> None:
        """End `run`."""
        os.write(self._stop_w, b"x")

    def close(self) -> None:
        """Release the wake-up pipe; the relay has ended."""
        os.close(self._stop_r)
        os.close(self._stop_w)


def _open_tun(ns: Namespace) -> int:
    with ns.entered():
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"tun0", IFF_TUN_NO_PI))
    return fd


@contextlib.contextmanager
def quick_turns() -> Iterator[None]:
    """Let the relay have the interpreter soon: 5 ms, the default, makes ends repeat segments."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(RELAY_TURN_S)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


@dataclass(frozen=True, slots=True)
class WiredNet:
    """A network together with the wire that carries it."""

    net: Net
    wire: Wire


@contextlib.contextmanager
def wired_pair(label: str = "wire") -> Iterator[WiredNet]:
    """Two namespaces joined by a steerable wire."""
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(namespace(f"{label}c"))
        server = stack.enter_context(namespace(f"{label}s"))
        fds = [_open_tun(client), _open_tun(server)]
        for fd in fds:
            stack.callback(os.close, fd)
        configure(client, "tun0", CLIENT_ADDRESS)
        configure(server, "tun0", SERVER_ADDRESS)
        stack.enter_context(quick_turns())
        wire = Wire(*fds)
        stack.callback(wire.close)
        relay = threading.Thread(target=wire.run, name="wire", daemon=True)
        relay.start()
        stack.callback(relay.join, DEADLINE_S)
        stack.callback(wire.stop)
        ends = Side(client, CLIENT_ADDRESS, "tun0"), Side(server, SERVER_ADDRESS, "tun0")
        yield WiredNet(Net("wire", *ends), wire)


def wait_until(condition: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Poll `condition` every millisecond; raises TimeoutError naming `what`."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"gave up after {deadline_s} s waiting for {what}")
        time.sleep(0.001)
