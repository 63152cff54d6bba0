# SPDX-License-Identifier: Apache-2.0
"""The one process that keeps privilege: it takes a census when it is asked to, and nothing else.

A census enters network namespaces and asks who holds which socket. The protocol has one request,
a single byte, and one answer: a JSON message {"bytes": n} with the descriptor of a memory file
that holds the CENSUS batch, or {"error": text}. The helper is forked from the tracer before that
gives up its privilege, and lives as long as the channel.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import socket
import time
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, Self

from tracer import memory, privileges
from tracer.errors import FourwaveError
from tracer.serve_child import Child
from tracer.serve_findings import Findings
from tracer.tcp import TcpState
from tracer.wire_census import decode_census

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tracer.kernel.census import CensusSource
    from tracer.privileges import Account
    from tracer.serve_findings import Present

ASK: Final = b"c"
MESSAGE_MAX: Final = 4096
END_S: Final = 2.0
"""For a census that is under way at the end."""
CENSUS_MAX_BYTES: Final = 1 << 30
IDLE_FACTOR: Final = 2
ROWS: Final = (TcpState.LISTEN, TcpState.CLOSE_WAIT)
"""Whose sockets the detectors of Findings ask for one by one."""


class Timetable:
    """When a census is due: half as often while nothing closes, as soon as something does."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._last: tuple[float, int] | None = None

    def due(self, now_s: float, closes: int) -> bool:
        """Say whether one is due after so many closes; then that was the last one."""
        if self._last is not None:
            last_s, closes_then = self._last
            if now_s < last_s + self._every_s * (IDLE_FACTOR if closes == closes_then else 1):
                return False
        self._last = now_s, closes
        return True


class CensusHelper:
    """The tracer's end."""

    def __init__(
        self,
        source: CensusSource,
        account: Account | None,
        forget: Callable[[], object],
        every_s: float,
    ) -> None:
        """Fork the helper, which takes the source with it; ours is closed.

        `forget` lets go, in the helper, of all that is the tracer's own.
        """
        self.mechanism, self.reason = source.mechanism, source.reason
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def work() -> int:
            ours.close()
            forget()
            return _help(theirs, source, account)

        self._child = Child("fourwave-census", work)
        theirs.close()
        source.close()
        self._channel = ours
        self._channel.setblocking(False)
        self._findings = Findings()
        self._judging: Thread | None = None
        self._judged: Present | None = None
        self._asked = False
        self._timetable = Timetable(every_s)
        self._at_s = 0.0

    def refresh(self, closes: int) -> Present | None:
        """Keep the timetable: ask when it is time; return what a census came to, once.

        Never blocks: detectors take their time in a thread, the ring must not wait for them.
        A census that failed is asked for again when it is time. `closes`: how many so far.
        """
        if self._judging is not None:
            if self._judging.is_alive():
                return None
            self._judging = None
            return self._judged
        try:
            self._ask(closes)
            data = self._take()
        except (OSError, FourwaveError) as error:
            return self._findings.fail(error)
        if data is not None:
            # A census that is judged when the end comes is of no use to anybody: a daemon.
            self._judging = Thread(target=self._look, args=(data, self._at_s), daemon=True)
            self._judging.start()
        return None

    def _look(self, data: memoryview, at_s: float) -> None:
        try:
            self._judged = self._findings.look(decode_census(data), at_s)
        except FourwaveError as error:
            self._judged = self._findings.fail(error)
        memory.trim()

    def _ask(self, closes: int) -> None:
        if self._asked or not self._timetable.due(time.monotonic(), closes):
            return
        self._at_s = time.time()
        self._channel.send(ASK)
        self._asked = True

    def _take(self) -> memoryview | None:
        if not self._asked:
            return None
        try:
            message, fds, _, _ = socket.recv_fds(self._channel, MESSAGE_MAX, 1)
        except BlockingIOError:
            return None
        self._asked = False
        with contextlib.ExitStack() as stack:
            for fd in fds:
                stack.callback(os.close, fd)
            return _content(fds, _answer_in(message)["bytes"])

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the helper."""
        self._channel.close()
        self._child.end(END_S)


def _answer_in(message: bytes) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(message or b'{"error": "the census process ended"}')
    if "error" in answer:
        raise FourwaveError(str(answer["error"]))
    return answer


def _content(fds: list[int], size: int) -> memoryview:
    if len(fds) != 1 or not 0 < size <= CENSUS_MAX_BYTES:
        raise FourwaveError(f"a census of {size} bytes in {len(fds)} descriptors")
    # Unmapped when the last array in it is gone.
    return memoryview(mmap.mmap(fds[0], size, prot=mmap.PROT_READ))


def _help(channel: socket.socket, source: CensusSource, account: Account | None) -> int:
    try:
        privileges.drop(account, privileges.names(privileges.CENSUS))
        privileges.settle(lambda: _try(source), privileges.CENSUS)
        while channel.recv(1) == ASK:
            if Child("fourwave-census", lambda: _answer(channel, source)).wait() < 0:
                _refuse(channel, FourwaveError("the process that took it was killed"))
    except (OSError, FourwaveError) as error:
        _refuse(channel, error)
        return 1
    return 0


# Each census is taken by a process that ends with it: what it took of memory is given back.
def _answer(channel: socket.socket, source: CensusSource) -> int:
    try:
        batch = source.take(rows=ROWS, owners=True)
        with memory_file(batch.data) as fd:
            answer: dict[str, Any] = {"bytes": len(batch.data)}
            socket.send_fds(channel, [json.dumps(answer).encode()], [fd])
    except (OSError, FourwaveError) as error:
        _refuse(channel, error)
    return 0


def _refuse(channel: socket.socket, error: Exception) -> None:
    with contextlib.suppress(OSError):
        channel.send(json.dumps({"error": f"{error!s:.1000}"}).encode())


# Raises OSError where the kernel refuses a census. The status is the errno.
def _try(source: CensusSource) -> None:
    def work() -> int:
        try:
            source.take(rows=ROWS, owners=True)
        except OSError as error:
            return error.errno or 1
        return 0

    status = Child("fourwave-census", work).wait()
    if status:
        raise OSError(abs(status), os.strerror(abs(status)))


@contextlib.contextmanager
def memory_file(content: bytes | memoryview) -> Iterator[int]:
    """Hold the content in memory; yield its descriptor."""
    fd = os.memfd_create("census", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(fd), "wb", buffering=0) as file:
            file.write(content)
        yield fd
    finally:
        os.close(fd)
