# SPDX-License-Identifier: Apache-2.0
"""What this host allows, fact by fact, each "no" with its remedy."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Final

from tracer.outputs.text import BOLD, GREEN, RED, YELLOW, paint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Protocol

    class Fact(Protocol):
        """What tracer/kernel/support.py finds out. `ok` None: works without, but less well."""

        @property
        def name(self) -> str:
            """What was asked."""

        @property
        def ok(self) -> bool | None:
            """Whether it is there."""

        @property
        def detail(self) -> str:
            """What was found."""

        @property
        def remedy(self) -> str | None:
            """How to get it."""


MARKS: Final = {True: ("yes", GREEN), None: ("part", YELLOW), False: ("no", RED)}
VERDICTS: Final = {
    True: "fourwave watch can run here.",
    False: "fourwave watch cannot run here.",
}
NAME_WIDTH: Final = 20
INDENT: Final = " " * (NAME_WIDTH + 7)
WIDTH: Final = 79


def able(facts: Sequence[Fact]) -> bool:
    """Whether nothing that is needed is missing."""
    return all(fact.ok is not False for fact in facts)


def as_text(facts: Sequence[Fact], *, color: bool) -> str:
    """Return a line or more per fact, and the verdict."""
    lines = [line for fact in facts for line in _lines(fact, color=color)]
    verdict = paint(VERDICTS[able(facts)], BOLD if color else "")
    return "\n".join([*lines, "", verdict, ""])


def as_json(facts: Iterable[Fact]) -> str:
    """Return one object per line: name, ok, detail, remedy."""
    return "".join(
        json.dumps({"name": f.name, "ok": f.ok, "detail": f.detail, "remedy": f.remedy}) + "\n"
        for f in facts
    )


def _lines(fact: Fact, *, color: bool) -> Iterator[str]:
    word, ink = MARKS[fact.ok]
    mark = paint(f"{word:<4}", ink if color else "")
    first, *more = _wrap(fact.detail) or [""]
    yield f"{mark}  {fact.name:<{NAME_WIDTH}} {first}".rstrip()
    yield from (INDENT + line for line in more)
    if fact.remedy:
        yield from (INDENT + line for line in _wrap(f"-> {fact.remedy}"))


# Line ends of a compiler's or verifier's message are kept.
def _wrap(text: str) -> list[str]:
    room = WIDTH - len(INDENT)
    return [part for line in text.splitlines() for part in textwrap.wrap(line, room) or [""]]
