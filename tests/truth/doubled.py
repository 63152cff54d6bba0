# SPDX-License-Identifier: Apache-2.0
"""Packets that come twice, at the same moment on two CPUs.

`python -m tests.truth.doubled CPU ME TUN TURNS` writes the packets of its input, one after the
other, to the descriptor TUN: each when the other of two such processes, whose turn is in the
shared memory TURNS, has come as far.
"""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.truth.wire import Direction

__all__ = ("CPUS", "deliver_twice")

ROOT: Final = Path(__file__).resolve().parents[2]
CPUS: Final = sorted(os.sched_getaffinity(0))[:2]
LENGTH: Final = struct.Struct("=I")
DEADLINE_S: Final = 60.0


def deliver_twice(way: Direction, packets: list[bytes]) -> None:
    """Write each packet to the end of `way` from two CPUs at once. Raises TimeoutExpired."""
    turns = os.memfd_create("turns")
    try:
        os.truncate(turns, mmap.PAGESIZE)
        shared = (way.target, turns)
        stream = b"".join(LENGTH.pack(len(packet)) + packet for packet in packets)
        writers = [_writer(me, shared) for me in range(len(CPUS))]
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write(stream)
            writer.stdin.close()
        for writer in writers:
            assert writer.wait(DEADLINE_S) == 0
    finally:
        os.close(turns)


def _writer(me: int, shared: tuple[int, int]) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "tests.truth.doubled", *map(str, (CPUS[me], me, *shared))]
    return subprocess.Popen(words, cwd=ROOT, pass_fds=shared, stdin=subprocess.PIPE)


def packets_of(stream: bytes) -> list[bytes]:
    """Return the packets, each behind its length."""
    packets, at = [], 0
    while at < len(stream):
        (length,) = LENGTH.unpack_from(stream, at)
        at += LENGTH.size + length
        packets.append(stream[at - length : at])
    return packets


def main(cpu: int, me: int, tun: int, turns: int) -> None:
    """Write, each packet in turn; 0 is before the first one."""
    os.sched_setaffinity(0, {cpu})
    packets = packets_of(sys.stdin.buffer.read())
    turn = memoryview(mmap.mmap(turns, mmap.PAGESIZE)).cast("Q")
    for number, packet in enumerate(packets, 1):
        turn[me] = number
        while turn[1 - me] < number:
            pass
        os.write(tun, packet)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
