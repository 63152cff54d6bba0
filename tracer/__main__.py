# SPDX-License-Identifier: Apache-2.0
"""`python -m tracer` is `fourwave`."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from types import FrameType


class Interrupt:
    """SIGINT until somebody else takes care of it (session_live.Stop).

    It is remembered: where it happens to come in a destructor or a callback the exception is
    swallowed, and the view that begins then would run for ever.
    """

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, _number: int, _frame: FrameType | None) -> NoReturn:
        """Raise KeyboardInterrupt."""
        self.asked = True
        raise KeyboardInterrupt


def main() -> None:
    """Run the command line; who interrupts while it is still being imported gets no traceback."""
    try:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, Interrupt())
        from tracer import cli  # noqa: PLC0415 - that is the point

        cli.main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
