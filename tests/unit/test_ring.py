# SPDX-License-Identifier: Apache-2.0
"""The ring is drained exactly: nothing twice, nothing lost, nothing half written."""

from __future__ import annotations

import mmap
import os
import random
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tracer.kernel.ring import Ring

if TYPE_CHECKING:
    from collections.abc import Iterator

RING: Final = "memfd:ring"
PAGE: Final = mmap.PAGESIZE
DATA: Final = 4 * PAGE
STRIDE: Final = 384  # no divisor of DATA: records lie over the end in every round
BUSY: Final = 1 << 31
ROOM: Final = DATA // STRIDE


class Kernel:
    """The producer's side, in a memfd of the ring's layout.

    The kernel maps its data pages twice in a row; a file cannot, so each byte is written to
    both places.
    """

    def __init__(self) -> None:
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 2 * PAGE + 2 * DATA)
        self._map = mmap.mmap(self.fd, 2 * PAGE + 2 * DATA)
        self.consumed = memoryview(self._map)[:8].cast("Q")
        self._produced = memoryview(self._map)[PAGE : PAGE + 8].cast("Q")

    def start_at(self, position: int) -> None:
        """Begin as if `position` bytes had gone through already."""
        self.consumed[0] = self._produced[0] = position

    def output(self, payload: bytes, *, busy: bool = False) -> int:
        """Publish one record; return its position. Raises IndexError when the ring is full."""
        at = self._produced[0]
        if at + STRIDE - self.consumed[0] > DATA:
            raise IndexError("ring full")
        length = STRIDE - 8
        self._write(at, struct.pack("II", length | (BUSY if busy else 0), 3) + payload)
        self._produced[0] = at + STRIDE
        return at

    def commit(self, at: int) -> None:
        """Finish a record that was published while busy."""
        self._write(at, struct.pack("I", STRIDE - 8))

    def close(self) -> None:
        """Unmap and close."""
        self.consumed.release()
        self._produced.release()
        self._map.close()
        os.close(self.fd)

    def _write(self, at: int, data: bytes) -> None:
        for offset, byte in enumerate(data, at):
            self._map[2 * PAGE + offset % DATA] = byte
            self._map[2 * PAGE + DATA + offset % DATA] = byte


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    made = Kernel()
    yield made
    made.close()


@pytest.fixture
def ring(kernel: Kernel) -> Iterator[Ring]:
    made = Ring(kernel.fd, DATA, STRIDE)
    yield made
    made.close()


def payload(number: int) -> bytes:
    return struct.pack("Q", number) * ((STRIDE - 8) // 8)


def numbers(data: bytes) -> list[int]:
    """Return which records these are; each is whole and has its header."""
    assert len(data) % STRIDE == 0
    found = []
    for at in range(0, len(data), STRIDE):
        length, number = struct.unpack_from("I4xQ", data, at)
        assert length == STRIDE - 8
        assert data[at + 8 : at + STRIDE] == payload(number)
        found.append(number)
    return found


def test_an_empty_ring_gives_nothing(kernel: Kernel, ring: Ring) -> None:
    assert ring.drain() == b""
    assert kernel.consumed[0] == 0


def test_all_records_come_in_order_and_once(kernel: Kernel, ring: Ring) -> None:
    for number in range(5):
        kernel.output(payload(number))
    assert numbers(ring.drain()) == [0, 1, 2, 3, 4]
    assert kernel.consumed[0] == 5 * STRIDE
    assert ring.drain() == b""


def test_a_full_ring_comes_whole_and_has_room_again(kernel: Kernel, ring: Ring) -> None:
    for number in range(ROOM):
        kernel.output(payload(number))
    with pytest.raises(IndexError):
        kernel.output(payload(0))
    assert numbers(ring.drain()) == list(range(ROOM))
    kernel.output(payload(99))
    assert numbers(ring.drain()) == [99]


@pytest.mark.parametrize("before_end", range(8, STRIDE + 1, 8))
def test_a_record_over_the_end_is_whole(kernel: Kernel, ring: Ring, before_end: int) -> None:
    """Cut anywhere, in its header too: alignment keeps only the header's words together."""
    kernel.start_at(7 * DATA - before_end)
    kernel.output(payload(1))
    kernel.output(payload(2))
    assert numbers(ring.drain()) == [1, 2]
    assert kernel.consumed[0] == 7 * DATA - before_end + 2 * STRIDE


def test_a_busy_record_holds_back_all_behind_it(kernel: Kernel, ring: Ring) -> None:
    kernel.output(payload(0))
    busy = kernel.output(payload(1), busy=True)
    kernel.output(payload(2))
    assert numbers(ring.drain()) == [0]
    assert kernel.consumed[0] == busy
    assert ring.drain() == b""
    assert kernel.consumed[0] == busy
    kernel.commit(busy)
    assert numbers(ring.drain()) == [1, 2]


def test_two_busy_records_are_waited_for_in_turn(kernel: Kernel, ring: Ring) -> None:
    first, second = (kernel.output(payload(n), busy=True) for n in range(2))
    assert ring.drain() == b""
    kernel.commit(second)
    assert ring.drain() == b""
    kernel.commit(first)
    assert numbers(ring.drain()) == [0, 1]


def test_a_busy_record_over_the_end_is_seen(kernel: Kernel, ring: Ring) -> None:
    kernel.start_at(DATA - STRIDE - 8)
    kernel.output(payload(0))
    busy = kernel.output(payload(1), busy=True)  # 8 bytes before the end
    assert numbers(ring.drain()) == [0]
    kernel.commit(busy)
    assert numbers(ring.drain()) == [1]


def test_positions_may_be_large(kernel: Kernel, ring: Ring) -> None:
    """They grow for ever: a float would lose the low bits beyond 2**53."""
    start = (1 << 60) + 8
    kernel.start_at(start)
    kernel.output(payload(3))
    assert numbers(ring.drain()) == [3]
    assert kernel.consumed[0] == start + STRIDE


def test_nothing_is_lost_over_many_rounds(kernel: Kernel, ring: Ring) -> None:
    """Any mixture of output, late commits and drains gives every record once, in order."""
    dice, made, got = random.Random(23), 0, []
    late: list[int] = []
    while made < 40 * ROOM:
        for _ in range(dice.randrange(12)):
            busy = dice.random() < 0.1
            try:
                at = kernel.output(payload(made), busy=busy)
            except IndexError:
                break
            made += 1
            late += [at] if busy else []
        dice.shuffle(late)
        for _ in range(dice.randrange(len(late) + 1)):
            kernel.commit(late.pop())
        got += numbers(ring.drain())
    for at in late:
        kernel.commit(at)
    got += numbers(ring.drain())
    assert got == list(range(made))
    assert kernel.consumed[0] == made * STRIDE


def test_what_was_drained_is_ours(kernel: Kernel, ring: Ring) -> None:
    """The kernel may overwrite the place; the bytes are a copy."""
    kernel.output(payload(1))
    data = ring.drain()
    for number in range(ROOM):
        kernel.output(payload(100 + number))
    assert numbers(data) == [1]


def mapped_pages() -> int:
    """Return how many pages of the ring this process has mapped, its producer's included."""
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if RING in line]
    ends = [[int(end, 16) for end in line.split()[0].split("-")] for line in lines]
    return sum(end - start for start, end in ends) // PAGE


def test_only_what_waits_is_mapped(
    kernel: Kernel, ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And only until nobody looks at it any more."""
    monkeypatch.setattr("tracer.kernel.ring._FEW", 1)
    before = mapped_pages()
    assert not ring.take()
    kernel.start_at(DATA - STRIDE)
    for number in range(PAGE // STRIDE):
        kernel.output(payload(number))
    taken = ring.take()
    assert mapped_pages() == before + 2
    ring.release()
    assert mapped_pages() == before + 2
    del taken
    assert mapped_pages() == before


def test_a_busy_ring_stays_mapped(
    kernel: Kernel, ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until there is little in it again."""
    monkeypatch.setattr("tracer.kernel.ring._FEW", 8)
    before = mapped_pages()
    for number in range(ROOM // 2):
        kernel.output(payload(number))
    assert numbers(ring.drain()) == list(range(ROOM // 2))
    assert mapped_pages() == before + 2 * DATA // PAGE
    kernel.output(payload(7))
    assert numbers(ring.drain()) == [7]
    assert mapped_pages() == before


@pytest.mark.parametrize("few", [1, 1 << 20])
def test_both_ways_read_the_same(
    kernel: Kernel, ring: Ring, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Window by window, and from one mapping."""
    monkeypatch.setattr("tracer.kernel.ring._FEW", few)
    for number in range(3 * ROOM):
        kernel.output(payload(number))
        assert numbers(ring.drain()) == [number]


def test_closing_leaves_the_descriptor_and_its_records(kernel: Kernel) -> None:
    Ring(kernel.fd, DATA, STRIDE).close()
    kernel.output(payload(5))
    again = Ring(kernel.fd, DATA, STRIDE)
    assert numbers(again.drain()) == [5]
    again.close()
