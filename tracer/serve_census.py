# SPDX-License-Identifier: Apache-2.0
"""The one process that keeps privilege: it takes a census when it is asked to, and nothing else.

A census enters network namespaces and asks who holds which socket. The protocol has one request,
a single byte, and one answer: a JSON message {"bytes": n} with the descriptor of a memory file
that holds the CENSUS batch, or {"error": text}. The helper is forked from the tracer before that
gives up its privilege, and lives as long as the channel.
"""

from __future__ import annotations

import contextlib
import gc
import json
import mmap
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

from tracer import privileges
from tracer.errors import FourwaveError
from tracer.serve_findings import Findings
from tracer.tcp import TcpState
from tracer.wire_census import decode_census

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from tracer.batch import Batch
    from tracer.kernel.census import CensusSource
    from tracer.privileges import Account
    from tracer.serve_findings import Present

ASK: Final = b"c"
MESSAGE_MAX: Final = 4096
CENSUS_MAX_BYTES: Final = 1 << 30
ROWS: Final = (TcpState.LISTEN, TcpState.CLOSE_WAIT)
"""Whose sockets the detectors of Findings ask for one by one."""


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
        gc.freeze()  # pages that the collector does not write to stay shared
        self._pid = os.fork()
        if not self._pid:
            ours.close()
            _helper(theirs, source, account, forget)
        theirs.close()
        source.close()
        self._channel = ours
        self._channel.setblocking(False)
        self._findings = Findings()
        self._judge = ThreadPoolExecutor(1, "detectors")
        self._judging: Future[Present] | None = None
        self._asked = False
        self._every_s = every_s
        self._due_s = 0.0
        self._at_s = 0.0

    def refresh(self) -> Present | None:
        """Keep the timetable: ask when it is time; return what a census came to, once.

        Never blocks: detectors take their time in a thread, the ring must not wait for them.
        A census that failed is asked for again when it is time.
        """
        if self._judging is not None:
            if not self._judging.done():
                return None
            judged, self._judging = self._judging.result(), None
            return judged
        try:
            self._ask()
            data = self._take()
        except (OSError, FourwaveError) as error:
            self._due_s = time.monotonic() + self._every_s
            return self._findings.fail(error)
        if data is not None:
            self._judging = self._judge.submit(self._look, data, self._at_s)
        return None

    def _look(self, data: bytes, at_s: float) -> Present:
        try:
            return self._findings.look(decode_census(data), at_s)
        except FourwaveError as error:
            return self._findings.fail(error)

    def _ask(self) -> None:
        if self._asked or time.monotonic() < self._due_s:
            return
        self._due_s = time.monotonic() + self._every_s
        self._at_s = time.time()
        self._channel.send(ASK)
        self._asked = True

    def _take(self) -> bytes | None:
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
        self._judge.shutdown(cancel_futures=True)
        self._channel.close()
        os.waitpid(self._pid, 0)


def _answer_in(message: bytes) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(message or b'{"error": "the census process ended"}')
    if "error" in answer:
        raise FourwaveError(str(answer["error"]))
    return answer


def _content(fds: list[int], size: int) -> bytes:
    if len(fds) != 1 or not 0 < size <= CENSUS_MAX_BYTES:
        raise FourwaveError(f"a census of {size} bytes in {len(fds)} descriptors")
    with mmap.mmap(fds[0], size, prot=mmap.PROT_READ) as content:
        return content[:]


# The child never returns to the tracer's code.
def _helper(
    channel: socket.socket,
    source: CensusSource,
    account: Account | None,
    forget: Callable[[], object],
) -> NoReturn:
    code = 1
    try:
        # Ended by the channel, not by a terminal's ^C or a service manager's signal to all.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        forget()
        privileges.drop(account, privileges.names(privileges.CENSUS))
        privileges.settle(lambda: source.take(rows=ROWS, owners=True), privileges.CENSUS)
        _answer(channel, source)
        code = 0
    except (OSError, FourwaveError) as error:
        with contextlib.suppress(OSError):
            channel.send(json.dumps({"error": f"{error:.1000}"}).encode())
    finally:
        os._exit(code)


def _answer(channel: socket.socket, source: CensusSource) -> None:
    while channel.recv(1) == ASK:
        try:
            batch = source.take(rows=ROWS, owners=True)
        except (OSError, FourwaveError) as error:
            channel.send(json.dumps({"error": f"{error:.1000}"}).encode())
            continue
        _send(channel, batch)
        del batch


def _send(channel: socket.socket, batch: Batch) -> None:
    fd = os.memfd_create("census", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(fd), "wb", buffering=0) as file:
            file.write(batch.data)
        answer: dict[str, Any] = {"bytes": len(batch.data)}
        socket.send_fds(channel, [json.dumps(answer).encode()], [fd])
    finally:
        os.close(fd)
