# SPDX-License-Identifier: Apache-2.0
"""One JSON object per close, one close per line: the contract's keys, in its order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracer.close import to_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TextIO

    from tracer.close import Close


class JsonView:
    """Writes JSON lines; every call ends with a flush."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def closes(self, closes: Iterable[Close]) -> None:
        """Write one line for each."""
        self._stream.write("".join(to_json(close) + "\n" for close in closes))
        self._stream.flush()
