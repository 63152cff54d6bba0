# SPDX-License-Identifier: Apache-2.0
"""What `fourwave explain` was asked for: words, a recorded connection, or the next one live."""

from __future__ import annotations

import sys
import textwrap
from typing import TYPE_CHECKING, Final

from tracer import runs
from tracer.errors import UsageError
from tracer.outputs import topics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracer.outputs.topics import Section

WIDTH: Final = 79


def explain(words: Sequence[str], *, path: str | None, last: bool, wishes: runs.Wishes) -> None:
    """Print what was asked for. Raises FourwaveError and what belongs to it."""
    _check(words, path=path, last=last, wishes=wishes)
    if path is not None:
        from tracer import explain_closes  # noqa: PLC0415 - numpy

        explain_closes.recorded(path, wishes)
    elif last:
        with runs.attach() as source:
            from tracer import explain_closes  # noqa: PLC0415 - numpy

            explain_closes.upcoming(source, wishes)
    else:
        sys.stdout.write(_told(words, wishes))
        sys.stdout.flush()


def _check(words: Sequence[str], *, path: str | None, last: bool, wishes: runs.Wishes) -> None:
    if path is not None and last:
        raise UsageError("--in reads a recording, --last waits for a connection: choose one")
    if words and (path is not None or last):
        raise UsageError("a topic is explained by itself: give it without --in and --last")
    narrowed = any(wishes.filters.values()) or wishes.count is not None
    if not last and path is None and (narrowed or wishes.duration_s is not None):
        raise UsageError("filters and limits choose connections: give --in FILE or --last, too")
    if path is not None and wishes.duration_s is not None:
        raise UsageError("--duration limits how long to wait: it goes with --last")


def _told(words: Sequence[str], wishes: runs.Wishes) -> str:
    if wishes.as_json:
        return "".join(map(topics.as_json, _sections(words) if words else topics.sections()))
    if not words:
        return topics.listing(color=wishes.color)
    return "\n".join(
        topics.as_text(section, encoding=sys.stdout.encoding, color=wishes.color)
        for section in _sections(words)
    )


# In the order asked for, each once.
def _sections(words: Sequence[str]) -> list[Section]:
    found: list[Section] = []
    for word in words:
        sections = topics.find(word)
        if not sections:
            raise UsageError(_no_topic(word))
        found += [section for section in sections if section not in found]
    return found


def _no_topic(word: str) -> str:
    near = topics.near(word)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    lists = (
        textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="    ")
        for line in topics.names().splitlines()
    )
    return "\n".join([f"there is no topic {word!r}{hint}", *lists])
