# SPDX-License-Identifier: Apache-2.0
"""Processes forked from this one: they share memory with it, and need no file of a program."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import select
import signal
from typing import TYPE_CHECKING, Final

from tracer.errors import FourwaveError
from tracer.runs import tell

if TYPE_CHECKING:
    from collections.abc import Callable

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_NAME: Final = 15
_libc = ctypes.CDLL(None)


class Child:
    """One of them; it never returns to the code of who forked it."""

    def __init__(self, name: str, work: Callable[[], int]) -> None:
        """Fork; `work` returns the exit status there. `name`: of at most 15 bytes, as ps shows it.

        Signals that end or reload the service, or come from a terminal, are ignored there.
        """
        gc.freeze()  # pages that the collector does not write to stay shared
        self.pid = os.fork()
        if not self.pid:
            _work(name, work)

    def wait(self) -> int:
        """Wait for its end; return its status, negative for a signal. Once."""
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)

    def end(self, within_s: float) -> None:
        """Wait for its end, and kill it when that takes longer."""
        fd = os.pidfd_open(self.pid)
        try:
            ended, _, _ = select.select([fd], [], [], within_s)
        finally:
            os.close(fd)
        if not ended:
            os.kill(self.pid, signal.SIGKILL)
        self.wait()


def _work(name: str, work: Callable[[], int]) -> None:
    code = 1
    try:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        os.environ.pop("NOTIFY_SOCKET", None)
        _libc.prctl(_PR_SET_NAME, name.encode())
        _silence()
        code = work()
    except FourwaveError as error:
        tell(f"{name}: {error}")
    except Exception as error:  # noqa: BLE001 - the edge of a process
        tell(f"{name}: internal error: {type(error).__name__}: {error}")
    finally:
        os._exit(code)


# Of the streams only stderr is anybody's but the parent's.
def _silence() -> None:
    with contextlib.closing(os.fdopen(os.open(os.devnull, os.O_RDWR), "rb", buffering=0)) as null:
        os.dup2(null.fileno(), 0)
        os.dup2(null.fileno(), 1)
