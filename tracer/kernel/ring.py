# SPDX-License-Identifier: Apache-2.0
"""The BPF ring buffer, mapped and drained by hand: no wake-up and no callback per record.

Layout (kernel/bpf/ringbuf.c): a consumer page we may write, a producer page we may only read,
then the data twice in a row, so that a record never wraps. Positions grow for ever and are
taken modulo the size. A record is a header of 8 bytes (u32 length with two flag bits, u32
page offset) and its data, 8-byte aligned. All our records have one size, hence one stride.

While little arrives, as much of the data is mapped as waits to be read, and only until it was.
The kernel enters all pages of a mapping at once: the whole ring, twice over, would be most of
what an idle tracer seems to take. To map a page costs 100 to 300 ns for ten records, so a busy
ring is mapped for good.
"""

from __future__ import annotations

import mmap
import threading

import numpy as np

__all__ = ("Ring",)

_FEW = 64  # less than one part in so many of the ring
_BUSY = np.uint32(1 << 31)  # BPF_RINGBUF_BUSY_BIT: reserved, still being written


class Ring:
    """The consumer's side of one ring. `data_bytes` is a power of two of pages."""

    def __init__(self, fd: int, data_bytes: int, stride: int) -> None:
        """Read from this ring; whoever opened `fd` closes it, after close()."""
        self._fd = fd
        self._consumer_map = mmap.mmap(fd, mmap.PAGESIZE)
        self._producer_map = mmap.mmap(fd, mmap.PAGESIZE, prot=mmap.PROT_READ, offset=mmap.PAGESIZE)
        self._consumer = _position(self._consumer_map)
        self._producer = _position(self._producer_map)
        self._size, self._stride = data_bytes, stride
        self._taken = 0
        self._all: memoryview | None = None
        self._fence = threading.Lock()
        self._fence.acquire()

    @property
    def waiting_bytes(self) -> int:
        """How much has arrived and was not taken."""
        return int(self._producer[0] - self._consumer[0])

    def take(self) -> memoryview:
        """Return all complete records where they lie, headers included; none may be there.

        They stay, and the kernel writes elsewhere, until release(); with the last view of them
        they are unmapped.

        The kernel publishes a record by a store-release of its header and the position by
        another. x86 keeps loads in order by itself, arm64 does not: without a barrier it may
        read the record's bytes before the header that says they are there, and let the kernel
        overwrite them before they were read. Releasing and taking a lock that nobody else holds
        is a release followed by an acquire, which arm64 keeps in order with everything on
        either side (stlr, then ldar: RCsc).
        """
        start, end = self._consumer[0], self._producer[0]
        if start == end:
            return memoryview(b"")
        data = self._mapped(start % self._size, end - start)
        self._barrier()
        self._taken = self._complete(data) * self._stride
        self._barrier()
        return data[: self._taken]

    def release(self) -> None:
        """Give the kernel back the place of what was taken: nobody may look at it any more."""
        if not self._taken:
            return
        self._barrier()
        self._consumer[0] += self._taken
        self._taken = 0

    def drain(self) -> bytes:
        """Return all complete records as a copy; empty when there are none."""
        data = bytes(self.take())
        self.release()
        return data

    def close(self) -> None:
        """Unmap. The ring itself lives on as long as somebody holds its descriptor."""
        self._all = None
        self._consumer.release()
        self._producer.release()
        self._consumer_map.close()
        self._producer_map.close()

    def _mapped(self, at: int, length: int) -> memoryview:
        if length * _FEW > self._size:
            if self._all is None:
                self._all = self._map(0, 2 * self._size)
            return self._all[at : at + length]
        self._all = None
        before = at % mmap.PAGESIZE  # a mapping begins with a page
        return self._map(at - before, before + length)[before:]

    # Behind the two pages of positions.
    def _map(self, at: int, length: int) -> memoryview:
        offset = 2 * mmap.PAGESIZE + at
        return memoryview(mmap.mmap(self._fd, length, prot=mmap.PROT_READ, offset=offset))

    # How many records in a row are complete, from the first on.
    def _complete(self, data: memoryview) -> int:
        headers = np.frombuffer(data, np.uint32)[:: self._stride // 4]
        busy = np.flatnonzero(headers & _BUSY)
        return int(busy[0]) if busy.size else len(headers)

    def _barrier(self) -> None:
        self._fence.release()
        self._fence.acquire()


# Not numpy: an idle tracer does little but look at these, and its scalars are slow when cold.
def _position(page: mmap.mmap) -> memoryview:
    return memoryview(page)[:8].cast("Q")
