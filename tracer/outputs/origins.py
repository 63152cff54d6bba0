# SPDX-License-Identifier: Apache-2.0
"""Stacks that sockets came from, below the group they belong to, and in JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tracer.close_text import comm, harmless
from tracer.origins import How
from tracer.outputs.text import plural, shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracer.origins import Frame, Origin, Origins

FRAMES_SHOWN: Final = 8
INDENT: Final = "    "
CALLS: Final = {How.CONNECTED: "connect()", How.ACCEPTED: "accept()"}
PYTHON: Final = "py::"
"""How Python's perf trampoline names its functions: "py::handle:/srv/app.py"."""


def as_lines(origins: Origins, width: int) -> list[str]:
    """Return each stack, a line per frame, the innermost first."""
    lines = []
    for one in origins.stacks:
        lines.append(f"{INDENT}{_title(one, origins)}")
        lines += [f"{INDENT * 2}{frame}" for frame in _frames(one)]
    if origins.unknown:
        known = f"{origins.unknown:,} of {plural(origins.asked, 'socket')}"
        lines.append(f"{INDENT}No stack of {known}: opened before this began, or not noted.")
    return [shorten(line, width) for line in lines]


def _title(one: Origin, origins: Origins) -> str:
    who = f"{comm(one.comm)}[{one.pid}]" + (", which is gone" if one.gone else "")
    return f"{CALLS[one.how]} by {who}, {one.count:,} of {plural(origins.asked, 'socket')}:"


def _frames(one: Origin) -> list[str]:
    frames = _telling(one.frames)
    shown = [_frame(frame) for frame in frames[:FRAMES_SHOWN]]
    more = len(frames) - len(shown)
    return [*shown, f"({plural(more, 'frame')} more)"] if more else shown


# Between two functions of Python lie several of its interpreter's.
def _telling(frames: Sequence[Frame]) -> Sequence[Frame]:
    return [frame for frame in frames if (frame.symbol or "").startswith(PYTHON)] or frames


def _frame(frame: Frame) -> str:
    symbol, module = (_text(name) for name in (frame.symbol, frame.module))
    if symbol is None:
        return f"{module}+{frame.offset:#x}" if module else f"{frame.offset:#x}"
    return f"{symbol}+{frame.offset:#x}" + (f" ({module})" if module else "")


def _text(name: str | None) -> str | None:
    return None if name is None else harmless(name.encode("utf-8", "surrogateescape"))


def as_json(origins: Origins | None) -> dict[str, Any] | None:
    """Return an object for JSON."""
    if origins is None:
        return None
    return {
        "asked": origins.asked,
        "unknown": origins.unknown,
        "stacks": [_stack(one) for one in origins.stacks],
    }


def _stack(one: Origin) -> dict[str, Any]:
    return {
        "how": one.how.name.lower(),
        "pid": one.pid,
        "comm": comm(one.comm),
        "gone": one.gone,
        "count": one.count,
        "frames": [
            {"symbol": _text(frame.symbol), "module": _text(frame.module), "offset": frame.offset}
            for frame in one.frames
        ],
    }
