# SPDX-License-Identifier: Apache-2.0
"""A TCP peer made by hand behind a TUN device: it sends exactly the segments it is told to.

Some closes cannot be had from two ordinary sockets: FINs that cross, a peer that
falls silent. Here nobody races anybody.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
from dataclasses import dataclass
from typing import Final, Self

from tracer.demo import netns

TUNSETIFF: Final = 0x400454CA
IFF_TUN: Final = 0x0001
IFF_NO_PI: Final = 0x1000
INTERFACE: Final = "fourwave0"
LOCAL_ADDRESS: Final = "192.0.2.1"  # TEST-NET-1 (RFC 5737): never a real host
PEER_ADDRESS: Final = "192.0.2.2"
PEER_PORT: Final = 7
PEER_ISN: Final = 1_000_000
WINDOW: Final = 65_535
DEADLINE_S: Final = 2.0

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
ACK: Final = 0x10

IPV4: Final = struct.Struct("!BBHHHBBH4s4s")
TCP: Final = struct.Struct("!HHIIBBHHH")


@dataclass(frozen=True, slots=True)
class Segment:
    """What the kernel sent us."""

    port: int
    seq: int
    flags: int
    payload_bytes: int

    @property
    def end(self) -> int:
        """The next sequence number: SYN and FIN count one."""
        length = self.payload_bytes + bool(self.flags & SYN) + bool(self.flags & FIN)
        return (self.seq + length) & 0xFFFFFFFF


class TunPeer:
    """The far end of one connection at a time. Raises OSError when there is no TUN device."""

    def __init__(self) -> None:
        self._fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        request = struct.pack("16sH22x", INTERFACE.encode(), IFF_TUN | IFF_NO_PI)
        fcntl.ioctl(self._fd, TUNSETIFF, request)
        netns.set_address(INTERFACE, LOCAL_ADDRESS, "255.255.255.0")
        netns.bring_up(INTERFACE)
        self._port = 0
        self.seq = PEER_ISN
        self.seen = 0  # the next byte we expect of the kernel

    def establish(self) -> socket.socket:
        """Return a connected socket whose far end is this peer."""
        kernel_end = self.start_connect()
        self.send(SYN | ACK)
        self.expect(ACK)
        kernel_end.setblocking(True)
        return kernel_end

    def start_connect(self) -> socket.socket:
        """Return a socket in SYN_SENT: its SYN has come, nobody has answered."""
        kernel_end = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        kernel_end.setblocking(False)
        kernel_end.connect_ex((PEER_ADDRESS, PEER_PORT))
        self._port = kernel_end.getsockname()[1]
        self.seq = PEER_ISN
        self.expect(SYN)
        return kernel_end

    def expect(self, flags: int) -> Segment:
        """Wait for a segment of this connection with these flags, and note where it ends."""
        while True:
            segment = self._receive()
            if segment.port == self._port and segment.flags & flags == flags:
                self.seen = segment.end
                return segment

    def send(self, flags: int, payload: bytes = b"", *, ack: int | None = None) -> None:
        """Send one segment; `ack` overrides the acknowledgement of all that was seen."""
        acked = self.seen if ack is None else ack
        packet = _packet(self._port, self.seq, acked & 0xFFFFFFFF, flags, payload)
        os.write(self._fd, packet)
        self.seq += len(payload) + bool(flags & SYN) + bool(flags & FIN)

    def _receive(self) -> Segment:
        while True:
            if not select.select([self._fd], [], [], DEADLINE_S)[0]:
                raise TimeoutError("the kernel sent nothing to the hand-made peer")
            segment = _parse(os.read(self._fd, 65_536))
            if segment is not None:
                return segment

    def __enter__(self) -> Self:
        """Own the device until the block ends."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the device: it lives as long as its file."""
        os.close(self._fd)


# Only IPv4 TCP towards our port counts; the kernel also multicasts over a new interface.
def _parse(packet: bytes) -> Segment | None:
    if len(packet) < IPV4.size + TCP.size or packet[0] >> 4 != 4 or packet[9] != socket.IPPROTO_TCP:
        return None
    header_bytes = (packet[0] & 15) * 4
    sport, dport, seq, _, offset, flags, *_ = TCP.unpack_from(packet, header_bytes)
    if dport != PEER_PORT:
        return None
    return Segment(sport, seq, flags, len(packet) - header_bytes - (offset >> 4) * 4)


def _packet(port: int, seq: int, ack: int, flags: int, payload: bytes) -> bytes:
    source, target = socket.inet_aton(PEER_ADDRESS), socket.inet_aton(LOCAL_ADDRESS)
    length = TCP.size + len(payload)
    pseudo = source + target + struct.pack("!BBH", 0, socket.IPPROTO_TCP, length)
    fields = (PEER_PORT, port, seq & 0xFFFFFFFF, ack, TCP.size // 4 << 4, flags, WINDOW)
    check = _checksum(pseudo + TCP.pack(*fields, 0, 0) + payload)
    segment = TCP.pack(*fields, check, 0) + payload
    head = (0x45, 0, IPV4.size + length, 0, 0, 64, socket.IPPROTO_TCP)
    check = _checksum(IPV4.pack(*head, 0, source, target))
    return IPV4.pack(*head, check, source, target) + segment


# RFC 1071.
def _checksum(data: bytes) -> int:
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
