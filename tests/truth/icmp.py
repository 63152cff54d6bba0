# SPDX-License-Identifier: Apache-2.0
"""An ICMP error that quotes a segment of ours, as a router between the ends would send it."""

from __future__ import annotations

import struct

import dpkt  # type: ignore[import-untyped]

HOST_UNREACHABLE = (3, 1)
QUOTED_BYTES = 64


def host_unreachable(packet: bytes) -> bytes:
    """Return the answer to a raw IPv4 packet that could not be delivered."""
    ip = dpkt.ip.IP(packet)
    body = struct.pack("!BBHI", *HOST_UNREACHABLE, 0, 0) + packet[:QUOTED_BYTES]
    body = body[:2] + struct.pack("!H", dpkt.in_cksum(body)) + body[4:]
    answer = dpkt.ip.IP(src=ip.dst, dst=ip.src, p=dpkt.ip.IP_PROTO_ICMP, ttl=64, data=body)
    answer.len = len(answer)
    return bytes(answer)
