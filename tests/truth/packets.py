# SPDX-License-Identifier: Apache-2.0
"""From a capture file to connections: segments grouped by 4-tuple and initial sequence number.

Sequence numbers are made relative to the SYN of their direction, so the first payload byte is 1
and wrapping is no concern. Lengths come from the IP header, so a short snap length is enough.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import dpkt  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

FIN, SYN, RST, ACK = (
    dpkt.tcp.TH_FIN,
    dpkt.tcp.TH_SYN,
    dpkt.tcp.TH_RST,
    dpkt.tcp.TH_ACK,
)
Address = tuple[str, int]
_HALF, _WHOLE = 1 << 31, 1 << 32
DEFAULT_MSS_BYTES = 536
TIMESTAMP_OPTION_BYTES = 12


@dataclass(frozen=True, slots=True)
class Segment:
    """One captured segment; `index` is its place in the capture, seq and ack are absolute."""

    index: int
    time_s: float
    family: int
    source: Address
    target: Address
    seq: int
    ack: int
    flags: int
    payload_bytes: int
    mss_bytes: int | None
    window: int = 1
    """As on the wire, not scaled."""

    def __str__(self) -> str:
        """One line, tcpdump's letters."""
        letters = "".join(c for bit, c in zip("FSRP.", "FSRP.", strict=True) if self._has(bit))
        return (
            f"{self.time_s:.6f} {self.source[0]}.{self.source[1]} > "
            f"{self.target[0]}.{self.target[1]} [{letters}] seq {self.seq} ack {self.ack} "
            f"len {self.payload_bytes}"
        )

    def _has(self, letter: str) -> bool:
        bits = {"F": FIN, "S": SYN, "R": RST, "P": dpkt.tcp.TH_PUSH, ".": ACK}
        return bool(self.flags & bits[letter])


def _network_layer(frame: bytes, datalink: int) -> dpkt.Packet:
    if datalink == dpkt.pcap.DLT_EN10MB:
        return dpkt.ethernet.Ethernet(frame).data
    return dpkt.ip6.IP6(frame) if frame[0] >> 4 == 6 else dpkt.ip.IP(frame)


def tcp_flags(packet: bytes) -> int:
    """Return the TCP flags of a raw IP packet, 0 when it is not TCP."""
    tcp = _network_layer(packet, dpkt.pcap.DLT_RAW).data
    return int(tcp.flags) if isinstance(tcp, dpkt.tcp.TCP) else 0


def flow(packet: bytes) -> tuple[bytes, bytes, int, int]:
    """Return which connection a raw TCP packet is of, and which way it goes."""
    ip = _network_layer(packet, dpkt.pcap.DLT_RAW)
    return ip.src, ip.dst, ip.data.sport, ip.data.dport


def forged(packet: bytes, flags: int, seq_offset: int) -> bytes:
    """Return a copy of a raw IP packet without payload, with other flags, its seq moved."""
    ip = _network_layer(packet, dpkt.pcap.DLT_RAW)
    tcp = ip.data
    tcp.flags, tcp.seq = flags, (tcp.seq + seq_offset) % _WHOLE
    tcp.data, tcp.sum = b"", 0
    if isinstance(ip, dpkt.ip6.IP6):
        ip.plen = len(tcp)
    else:
        ip.len, ip.sum = ip.hl * 4 + len(tcp), 0
    return bytes(ip)


def answer(packet: bytes, flags: int, seq_offset: int = 0) -> bytes:
    """Return what the receiver of a raw IP packet would send next: `flags`, no options, no data."""
    ip = _network_layer(packet, dpkt.pcap.DLT_RAW)
    tcp = ip.data
    length = len(tcp.data) + bool(tcp.flags & SYN) + bool(tcp.flags & FIN)
    ip.src, ip.dst = ip.dst, ip.src
    tcp.sport, tcp.dport = tcp.dport, tcp.sport
    tcp.seq, tcp.ack = (tcp.ack + seq_offset) % _WHOLE, (tcp.seq + length) % _WHOLE
    tcp.opts, tcp.off = b"", 5
    ip.data.data = b""
    return forged(bytes(_resized(ip)), flags, 0)


def _resized(ip: dpkt.Packet) -> dpkt.Packet:
    if isinstance(ip, dpkt.ip6.IP6):
        ip.plen = len(ip.data)
    else:
        ip.len = ip.hl * 4 + len(ip.data)
    return ip


def _mss(tcp: dpkt.tcp.TCP) -> int | None:
    if not tcp.flags & SYN:
        return None
    for kind, value in dpkt.tcp.parse_opts(tcp.opts):
        if kind == dpkt.tcp.TCP_OPT_MSS:
            return int.from_bytes(value, "big")
    return None


def _segment(index: int, time_s: float, packet: dpkt.Packet) -> Segment | None:
    tcp = getattr(packet, "data", None)
    if not isinstance(tcp, dpkt.tcp.TCP):
        return None
    if isinstance(packet, dpkt.ip6.IP6):
        family, length, name = 6, packet.plen, socket.AF_INET6
    else:
        family, length, name = 4, packet.len - packet.hl * 4, socket.AF_INET
    return Segment(
        index,
        time_s,
        family,
        (socket.inet_ntop(name, packet.src), tcp.sport),
        (socket.inet_ntop(name, packet.dst), tcp.dport),
        tcp.seq,
        tcp.ack,
        tcp.flags,
        length - tcp.off * 4,
        _mss(tcp),
        tcp.win,
    )


def read_segments(path: Path) -> Iterator[Segment]:
    """Yield the TCP segments of a pcap file (Ethernet or raw IP) in capture order."""
    with path.open("rb") as file:
        reader = dpkt.pcap.Reader(file)
        datalink = reader.datalink()
        for index, (time_s, frame) in enumerate(reader):
            segment = _segment(index, float(time_s), _network_layer(frame, datalink))
            if segment is not None:
                yield segment


@dataclass(slots=True)
class Sent:
    """Everything one end sent on one connection."""

    address: Address
    isn: int | None = None
    mss_bytes: int | None = None
    segments: list[Segment] = field(default_factory=list)

    def relative(self, seq: int) -> int:
        """Return an absolute sequence number relative to this end's SYN."""
        return (seq - (self.isn or 0) + _HALF) % _WHOLE - _HALF

    def start(self, segment: Segment) -> int:
        """Return the relative number of the segment's first byte, behind a SYN if it has one."""
        return self.relative(segment.seq) + bool(segment.flags & SYN)

    def end(self, segment: Segment) -> int:
        """Return the relative number after its last byte, a FIN counting one."""
        return self.start(segment) + segment.payload_bytes + bool(segment.flags & FIN)

    def add(self, segment: Segment) -> None:
        """Append a segment; the first one fixes the initial sequence number."""
        if self.isn is None:
            syn = bool(segment.flags & SYN)
            self.isn = segment.seq if syn else (segment.seq - 1) % _WHOLE
            self.mss_bytes = segment.mss_bytes
        self.segments.append(segment)


@dataclass(slots=True)
class Connection:
    """One connection: its client (who sent the SYN) and its server."""

    family: int
    client: Sent
    server: Sent
    whole: bool

    @property
    def segments(self) -> list[Segment]:
        """All segments in capture order."""
        both = self.client.segments + self.server.segments
        return sorted(both, key=lambda segment: segment.index)

    @property
    def segment_bytes(self) -> int:
        """The largest payload of one segment on the wire: what is longer travelled as several."""
        offers = [end.mss_bytes or DEFAULT_MSS_BYTES for end in (self.client, self.server)]
        return min(offers) - TIMESTAMP_OPTION_BYTES

    def has_syn(self, syn: Segment) -> bool:
        """Tell whether a SYN is one of this connection: repeated, or crossing the first one."""
        if syn.source == self.client.address:
            return syn.seq == self.client.isn
        return self.server.isn in (None, syn.seq)

    def add(self, segment: Segment) -> None:
        """Append a segment to the end that sent it."""
        is_client = segment.source == self.client.address
        (self.client if is_client else self.server).add(segment)


def connections(segments: Iterable[Segment]) -> list[Connection]:
    """Group segments; a SYN with a new initial sequence number begins another connection."""
    current: dict[frozenset[Address], Connection] = {}
    found = []
    for segment in segments:
        key = frozenset((segment.source, segment.target))
        connection = current.get(key)
        opens = segment.flags & (SYN | ACK) == SYN
        if connection is None or (opens and not connection.has_syn(segment)):
            ends = Sent(segment.source), Sent(segment.target)
            connection = Connection(segment.family, *ends, whole=opens)
            current[key] = connection
            found.append(connection)
        connection.add(segment)
    return found
