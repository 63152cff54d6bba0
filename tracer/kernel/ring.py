# SPDX-License-Identifier: Apache-2.0
"""The BPF ring buffer, mapped and drained by hand: no wake-ups, no callback per record.

Layout (kernel/bpf/ringbuf.c): a consumer page we may write, a producer page we may only read,
then the data twice in a row, so that a record never wraps. Positions grow for ever and are
taken modulo the size. A record is a header of 8 bytes (u32 length with two flag bits, u32
page offset) and its data, 8-byte aligned. All our records have one size, hence one stride.
"""

from __future__ import annotations

import contextlib
import mmap
import threading

import numpy as np

__all__ = ("Ring",)

_BUSY = np.uint32(1 << 31)  # BPF_RINGBUF_BUSY_BIT: reserved, still being written


class Ring:
    """The consumer's side of one ring. `data_bytes` is a power of two of pages."""

    def __init__(self, fd: int, data_bytes: int, stride: int) -> None:
        page = mmap.PAGESIZE
        self._consumer_map = mmap.mmap(fd, page)
        self._producer_map = mmap.mmap(fd, page + 2 * data_bytes, prot=mmap.PROT_READ, offset=page)
        self._consumer = _position(self._consumer_map)
        self._producer = _position(self._producer_map)
        self._data = memoryview(self._producer_map)[page:]
        self._headers = np.frombuffer(self._producer_map, np.uint32, offset=page)
        self._size, self._stride = data_bytes, stride
        self._taken = 0
        self._fence = threading.Lock()
        self._fence.acquire()

    @property
    def waiting_bytes(self) -> int:
        """How much has arrived and was not taken."""
        return int(self._producer[0] - self._consumer[0])

    def take(self) -> memoryview:
        """Return all complete records where they lie, headers included; none may be there.

        They stay, and the kernel writes elsewhere, until release(). The kernel publishes a
        record by a store-release of its header and the position by another. x86 keeps loads
        in order by itself, arm64 does not: without a barrier it may read the record's bytes
        before the header that says they are there, and let the kernel overwrite them before
        they were read. Releasing and taking a lock that nobody else holds is a release
        followed by an acquire, which arm64 keeps in order with everything on either side
        (stlr, then ldar: RCsc).
        """
        start, end = self._consumer[0], self._producer[0]
        at = start % self._size
        if start == end:
            return self._data[at:at]
        self._barrier()
        count = self._complete(start, (end - start) // self._stride)
        self._barrier()
        self._taken = count * self._stride
        return self._data[at : at + self._taken]

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
        del self._headers
        self._consumer.release()
        self._producer.release()
        self._consumer_map.close()
        # The traceback of an error on its way may hold what was taken: unmapped with it, then.
        with contextlib.suppress(BufferError):
            self._data.release()
            self._producer_map.close()

    # How many records in a row are complete, counted from `start`.
    def _complete(self, start: int, count: int) -> int:
        first, step = start % self._size // 4, self._stride // 4
        busy = np.flatnonzero(self._headers[first : first + count * step : step] & _BUSY)
        return int(busy[0]) if busy.size else count

    def _barrier(self) -> None:
        self._fence.release()
        self._fence.acquire()


# Not numpy: an idle tracer does little but look at these, and its scalars are slow when cold.
def _position(page: mmap.mmap) -> memoryview:
    return memoryview(page)[:8].cast("Q")
