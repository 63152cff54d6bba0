# SPDX-License-Identifier: Apache-2.0
"""Sockets in a sockmap: a program takes the data, and close() with some unread sends a FIN."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from typing import TYPE_CHECKING, Final

import pytest

from tests.truth.scenario import Stage
from tests.truth.sockets import Flavour, TcpState, read_eof, wait_readable, wait_state
from tracer.kernel import bpf, bpf_attr

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from tests.truth.netns import Net
    from tests.truth.watch import Watch

pytestmark = pytest.mark.kernel

# include/uapi/linux/bpf.h
BPF_MAP_UPDATE_ELEM, BPF_PROG_LOAD, BPF_PROG_ATTACH = 2, 5, 8
BPF_MAP_TYPE_SOCKMAP, BPF_PROG_TYPE_SK_SKB, BPF_SK_SKB_VERDICT = 15, 14, 38
SK_PASS: Final = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 1, 0x95, 0, 0, 0)
"""r0 = 1; exit: whatever comes is for the socket it came for."""

COUNT: Final = 3
WORDS: Final = b"never read"


class Attach(ctypes.Structure):
    """BPF_PROG_ATTACH."""

    _fields_ = [(name, ctypes.c_uint32) for name in ("target_fd", "prog_fd", "kind", "flags")]


def load_pass() -> int:
    """Return the descriptor of a program that passes all."""
    code, licence = ctypes.create_string_buffer(SK_PASS), ctypes.create_string_buffer(b"GPL")
    attr = bpf_attr.ProgLoad(
        prog_type=BPF_PROG_TYPE_SK_SKB,
        insn_cnt=len(SK_PASS) // 8,
        insns=ctypes.addressof(code),
        license=ctypes.addressof(licence),
    )
    return bpf.call(BPF_PROG_LOAD, attr, "load a verdict")


@pytest.fixture
def sockmap() -> Iterator[int]:
    """Make a map whose sockets have their data taken by a program."""
    with contextlib.ExitStack() as stack:
        try:
            map_fd = bpf.create_map(BPF_MAP_TYPE_SOCKMAP, 4, 4, COUNT, 0, "sockmap")
            stack.callback(os.close, map_fd)
            program = load_pass()
            stack.callback(os.close, program)
            bpf.call(BPF_PROG_ATTACH, Attach(map_fd, program, BPF_SK_SKB_VERDICT, 0), "attach")
        except bpf.LoadError as error:
            pytest.skip(f"this kernel has no sockmap with a verdict: {error}")
        yield map_fd


def put(map_fd: int, index: int, sock: socket.socket) -> None:
    """Put a connected socket into the map."""
    key, value = ctypes.c_uint32(index), ctypes.c_uint32(sock.fileno())
    attr = bpf_attr.Element(map_fd, 0, ctypes.addressof(key), ctypes.addressof(value), 0)
    bpf.call(BPF_MAP_UPDATE_ELEM, attr, "put a socket into a sockmap")


@pytest.mark.parametrize("peer_first", [False, True])
def test_unread_data_is_lost_by_a_fin(
    peer_first: bool, sockmap: int, loopback_net: Net, tracer_watch: Watch
) -> None:
    """No RST tells the peer: the record is the only one who knows."""
    since = tracer_watch.mark()
    with contextlib.closing(Stage(loopback_net, Flavour.V4, COUNT)) as stage:
        pairs = stage.talked()
        for index, pair in enumerate(pairs):
            put(sockmap, index, pair.first)
            pair.second.sendall(WORDS)
            wait_readable(pair.first, len(WORDS))
            if peer_first:
                pair.second.close()
                wait_state(pair.first, TcpState.CLOSE_WAIT)
            pair.first.close()
            if not peer_first:
                read_eof(pair.second)
                pair.second.close()
    found = tracer_watch.wait_records(loopback_net.inums, since, 2 * COUNT)
    ports = {pair.made.client[1] for pair in pairs}
    mine = [one for one in found if one["lport"] in ports]
    assert len(mine) == COUNT
    if not any(one["unread_bytes"] for one in mine):
        pytest.skip("for this kernel the program has read what it took")
    shown = {(one["kind"], one["unread_bytes"], one["data_lost"]) for one in mine}
    assert shown == {("passive" if peer_first else "active", len(WORDS), True)}
    assert all(one["why"].endswith("lost: 10 bytes of the peer's never read") for one in mine)
