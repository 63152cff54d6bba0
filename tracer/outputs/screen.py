# SPDX-License-Identifier: Apache-2.0
"""Where a view that repeats itself is shown: repainted on a terminal, appended elsewhere."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

WIDTH_MIN: Final = 60
WIDTH_FILE: Final = 79  # of what is no terminal: it may be read anywhere
HOME: Final = "\x1b[H"
CLEAR: Final = "\x1b[2J"
END_OF_LINE: Final = "\x1b[K"
BELOW: Final = "\x1b[J"
CUT_OFF: Final = "\x1b[?7l"
"""Of lines wider than a narrow terminal; wrapped, they would push the first ones off it."""
WRAP: Final = "\x1b[?7h"


class Screen:
    """One stream; with `repaint` each view takes the place of the one before."""

    def __init__(self, stream: TextIO, *, repaint: bool) -> None:
        self._stream = stream
        self._repaint = repaint and stream.isatty()
        self._shown = 0

    @property
    def width(self) -> int:
        """Return how wide a line may be."""
        if not self._stream.isatty():
            return WIDTH_FILE
        return max(WIDTH_MIN, shutil.get_terminal_size().columns - 1)

    def show(self, lines: Sequence[str]) -> None:
        """Write the lines; of more than fit on a repainted screen, the first."""
        if not self._repaint:
            gap = [""] if self._shown else []
            self._write("".join(f"{line}\n" for line in [*gap, *lines]))
        else:
            room = shutil.get_terminal_size().lines - 1
            if len(lines) > room:
                cut = len(lines) - room + 1
                lines = [*lines[: room - 1], f"({cut} lines more than this screen has)"]
            body = "".join(f"{line}{END_OF_LINE}\n" for line in lines)
            self._write(f"{'' if self._shown else CLEAR}{CUT_OFF}{HOME}{body}{BELOW}{WRAP}")
        self._shown += 1

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
