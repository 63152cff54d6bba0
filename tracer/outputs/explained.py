# SPDX-License-Identifier: Apache-2.0
"""One real close explained: its ladder, its verdict and why, and what to do about it."""

from __future__ import annotations

import json
import textwrap
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from tracer.close import to_json
from tracer.outputs import ladder, topics
from tracer.outputs.live import volume
from tracer.outputs.text import BOLD, KIND_COLORS, duration, paint, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracer.close import Close
    from tracer.outputs.topics import Section

WIDTH: Final = 79
NAMELESS: Final = "?"
ADVICE: Final = ("At fault", "What to do")


def as_text(close: Close, *, encoding: str | None, color: bool) -> str:
    """Return the explanation in 79 columns, colours not counted."""
    section = section_of(close)
    lines = [_head(close, color=color), *_facts(close), ""]
    lines += [*ladder.draw(close, encoding=encoding), "", *_why(close, color=color)]
    for title in ADVICE:
        lines += ["", *topics.part_lines(section, title, color=color)]
    lines += ["", f"More: fourwave explain {' '.join(words_of(close))}"]
    return "\n".join(lines) + "\n"


def as_json(close: Close) -> str:
    """Return one JSON object: the close as the contract has it, the ladder, and the advice."""
    section = section_of(close)
    rest = {
        "ladder": ladder.draw(close),
        "topics": words_of(close),
        **{title.lower().replace(" ", "_"): "\n".join(section.parts[title]) for title in ADVICE},
    }
    return f'{{"close":{to_json(close)},{json.dumps(rest)[1:]}\n'


def section_of(close: Close) -> Section:
    """Return what speaks of this close: its cause, else its kind."""
    by_kind = close.cause is None or close.kind == "unknown"
    group, name = ("kind", close.kind) if by_kind else ("cause", close.cause)
    return next(s for s in topics.sections() if (s.group, s.name) == (group, name))


def words_of(close: Close) -> list[str]:
    """Return the topics that speak of this close."""
    words = (close.kind, close.handshake, close.cause)
    return list(dict.fromkeys(word for word in words if word))


def _head(close: Close, *, color: bool) -> str:
    facts = [*words_of(close), close.fin_ack and f"ACK of the first FIN: {close.fin_ack}"]
    verdict = ", ".join(fact for fact in facts if fact)
    ink = (KIND_COLORS.get(close.kind) or BOLD) if color else ""
    return f"{_local(close.at)}  {paint(verdict, ink)}"


# The date too: a recording may be old.
def _local(at: str) -> str:
    moment = datetime.fromisoformat(at[:19]).replace(tzinfo=UTC).astimezone()
    return f"{moment:%Y-%m-%d %H:%M:%S}{at[19:23]}"


def _facts(close: Close) -> Iterator[str]:
    if close.opener:
        yield f"{_opened(close)} by {close.opener.comm or NAMELESS} (pid {close.opener.pid})"
    if close.closer:
        how = f": {close.closer.how}" if close.closer.how else ""
        closer = close.closer
        yield f"ended by {closer.comm or NAMELESS} (pid {closer.pid}, uid {closer.uid}){how}"
    if close.cgroup:
        yield shorten(f"in {close.cgroup}", WIDTH)
    unread = f" ({volume(close.unread_bytes)} unread)" if close.unread_bytes else ""
    life = f", lived {duration(close.lifetime_us)}" if close.lifetime_us is not None else ""
    yield f"sent {volume(close.tx_bytes)}, received {volume(close.rx_bytes)}{unread}{life}"


def _opened(close: Close) -> str:
    at = close.timeline_us
    if "accepted" not in at:
        return "opened"
    return f"accepted after {duration(at['accepted'] - at.get('established', 0))}"


def _why(close: Close, *, color: bool) -> list[str]:
    first, *rest = textwrap.wrap(f"Why: {close.why}", WIDTH, break_on_hyphens=False)
    return [paint("Why:", BOLD if color else "") + first.removeprefix("Why:"), *rest]
