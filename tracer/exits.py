# SPDX-License-Identifier: Apache-2.0
"""Where errors of a program end: as a line on stderr and an exit code, never as a traceback."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import TYPE_CHECKING, Final, NoReturn

from tracer.errors import MORE_FILES, FourwaveError, HostError
from tracer.runs import tell

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PROG: Final = "fourwave"
INTERRUPTED: Final = 130
TRACEBACK_VARIABLE: Final = "FOURWAVE_TRACEBACK"
FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What a full disk, a quota, a limit or a terminal that went away answers to who writes there."""
STREAMS: Final = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def open_streams() -> None:
    """Have /dev/null in place of each standard stream that is closed.

    Else the next file that is opened gets its number, and what is meant for the stream.
    """
    for number, (name, mode) in enumerate(STREAMS):
        if getattr(sys, name) is None and os.open(os.devnull, os.O_RDWR) == number:
            stream = os.fdopen(number, mode, errors="replace", closefd=False)
            setattr(sys, name, stream)


def fail(message: str, code: int) -> NoReturn:
    """Print one message and leave."""
    tell(f"{PROG}: {message}")
    sys.exit(code)


@contextlib.contextmanager
def known_errors() -> Iterator[None]:
    """Leave with the message and the exit code of an error that was foreseen."""
    try:
        yield
    except FourwaveError as error:
        fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        _forget_output()  # whoever read us has read enough
        sys.exit(0)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            fail(f"{error}; {MORE_FILES}", HostError.exit_code)
        if error.errno not in FULL or error.filename is not None:
            raise
        _forget_output()
        name = errno.errorcode[error.errno]
        fail(f"cannot write to standard output: {error.strerror} ({name})", 1)


# The interpreter must not flush what is left in the end.
def _forget_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def bugs(words: Iterable[str]) -> Iterator[None]:
    """Leave with one line that asks for a report; `words` were those of the command line."""
    try:
        yield
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        name = type(error).__name__
        fail(
            f"internal error: {name}: {error}; please report it with the output of "
            f"{TRACEBACK_VARIABLE}=1 {' '.join([PROG, *words])}",
            1,
        )
