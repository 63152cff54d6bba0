# SPDX-License-Identifier: Apache-2.0
"""Where errors of a program end: as a line on stderr and an exit code, never as a traceback."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Final, NoReturn

from tracer.errors import FourwaveError
from tracer.runs import tell

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PROG: Final = "fourwave"
INTERRUPTED: Final = 130
TRACEBACK_VARIABLE: Final = "FOURWAVE_TRACEBACK"


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
        # Whoever read us has read enough. The interpreter must not flush into the pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


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
