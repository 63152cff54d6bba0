# SPDX-License-Identifier: Apache-2.0
"""Filters: each alone chooses exactly the records it says, together they must all hold."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tracer.filters import Filter
from tracer.tcp import ActorFlag, Handshake, Kind
from tracer.verdict import VERDICT_DTYPE
from tracer.wire import CLOSE_DTYPE

if TYPE_CHECKING:
    from tracer.verdict import Verdicts
    from tracer.wire import Records


def address(text: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    mapped = text if ":" in text else f"::ffff:{text}"
    return np.frombuffer(ipaddress.IPv6Address(mapped).packed, np.uint8)


def network(text: str) -> ipaddress.IPv6Network:
    plain = ipaddress.ip_network(text)
    if isinstance(plain, ipaddress.IPv6Network):
        return plain
    return ipaddress.IPv6Network((f"::ffff:{plain.network_address}", 96 + plain.prefixlen))


@pytest.fixture
def records() -> Records:
    made = np.zeros(4, CLOSE_DTYPE)
    made["lport"] = [80, 443, 5000, 22]
    made["rport"] = [5000, 6000, 7000, 8000]
    made["netns"] = [1, 1, 2, 3]
    for at, raddr in enumerate(("10.0.0.1", "10.0.1.1", "2001:db8::1", "192.168.0.1")):
        made["daddr"][at] = address(raddr)
    for at, comm in enumerate((b"nginx", b"nginx-worker", b"curl", b"\xff\xfe")):
        made["closer"]["comm"][at, : len(comm)] = list(comm)
    made["closer"]["tgid"] = [10, 11, 12, 13]
    made["closer"]["flags"] = ActorFlag.VALID
    made["opener"]["tgid"] = [20, 21, 22, 23]
    made["opener"]["flags"] = [ActorFlag.VALID, 0, ActorFlag.VALID, ActorFlag.VALID]
    return made


@pytest.fixture
def verdicts() -> Verdicts:
    made = np.zeros(4, VERDICT_DTYPE)
    made["kind"] = [Kind.ACTIVE, Kind.PASSIVE, Kind.ABORT, Kind.PASSIVE]
    made["handshake"] = [
        Handshake.THREE_WAY,
        Handshake.FOUR_WAY,
        Handshake.NONE,
        Handshake.FOUR_WAY,
    ]
    made["closer_known"] = [1, 1, 1, 0]
    return made


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (Filter(), [1, 1, 1, 1]),
        (Filter(ports=(5000,)), [1, 0, 1, 0]),
        (Filter(ports=(443, 8000)), [0, 1, 0, 1]),
        (Filter(netns=(1,)), [1, 1, 0, 0]),
        (Filter(kinds=(Kind.PASSIVE,)), [0, 1, 0, 1]),
        (Filter(kinds=(Kind.ABORT, Kind.ACTIVE)), [1, 0, 1, 0]),
        (Filter(handshakes=(Handshake.NONE,)), [0, 0, 1, 0]),
        (Filter(pids=(10, 12)), [1, 0, 1, 0]),
        (Filter(pids=(13,)), [0, 0, 0, 0]),  # a bystander, not the closer
        (Filter(pids=(20, 21)), [1, 0, 0, 0]),  # 21 is not valid
        (Filter(comms=("nginx",)), [1, 0, 0, 0]),
        (Filter(comms=("nginx*", "cu?l")), [1, 1, 1, 0]),
        (Filter(raddrs=(network("10.0.0.0/24"),)), [1, 0, 0, 0]),
        (Filter(raddrs=(network("10.0.0.0/8"), network("2001:db8::/32"))), [1, 1, 1, 0]),
        (Filter(raddrs=(network("0.0.0.0/0"),)), [1, 1, 0, 1]),
        (Filter(raddrs=(network("192.168.0.1"),)), [0, 0, 0, 1]),
        (Filter(ports=(80, 443), kinds=(Kind.PASSIVE,)), [0, 1, 0, 0]),
    ],
)
def test_chooses(records: Records, verdicts: Verdicts, chosen: Filter, expected: list[int]) -> None:
    """Each filter, on records of every sort."""
    assert chosen.mask(records, verdicts).astype(int).tolist() == expected


def test_strided_records(records: Records, verdicts: Verdicts) -> None:
    """Records as they lie in the ring, not contiguous, are filtered alike."""
    spread = np.zeros(8, CLOSE_DTYPE)
    spread[::2] = records
    everything = Filter(comms=("*",), raddrs=(network("10.0.0.0/8"),))
    assert everything.mask(spread[::2], verdicts).tolist() == [True, True, False, False]


def test_no_records(records: Records, verdicts: Verdicts) -> None:
    """An empty batch is fine with every filter."""
    chosen = Filter(comms=("a",), raddrs=(network("10.0.0.0/8"),), pids=(1,), ports=(1,))
    assert chosen.mask(records[:0], verdicts[:0]).tolist() == []


def test_active() -> None:
    """A filter that asks nothing costs nothing."""
    assert not Filter().active
    assert Filter(ports=(1,)).active
    assert Filter(kinds=(Kind.UNKNOWN,)).active
