# SPDX-License-Identifier: Apache-2.0
"""What each word for an end of a connection means: the sections of docs/closes.md.

The document is package data, so that the page a person reads and what
`fourwave explain` prints are the same text.

Layout: `## Kinds`, `## Handshakes`, `## Causes` and `## Keys`, below them one `### word` per
section: a line that sums it up, the ladder as a code block, and paragraphs, of which
those that begin with `**Title:**` start a part.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

from tracer.outputs.ladder import UNICODE, glyphs_for
from tracer.outputs.live import CAUSE_WORDS, KIND_WORDS, SEGMENTS
from tracer.outputs.text import BOLD, paint

DOCUMENT: Final = Path(__file__).parents[1] / "closes.md"
GROUPS: Final = {"Kinds": "kind", "Handshakes": "handshake", "Causes": "cause", "Keys": "key"}
NAME_WIDTH: Final = 18
SUMMARY_WIDTH: Final = 57
SHORTEST_NEAR: Final = 0.6  # of 1: how alike a near miss is, difflib's own measure

# The words `watch` prints instead, and the errors that stand where a cause would.
ALIASES: Final = {
    **{short: word for word, short in (KIND_WORDS | CAUSE_WORDS).items()},
    **{short: handshake for (handshake, _), short in reversed(SEGMENTS.items())},
    "econnreset": "peer",
    "epipe": "peer",
    "econnrefused": "refused",
    "etimedout": "timeout",
    "econnaborted": "sock_destroy",
}


@dataclass(frozen=True, slots=True)
class Section:
    """One word: `group` is the key of the contract it is a value of; `parts` go by their title."""

    group: str
    name: str
    summary: str
    ladder: tuple[str, ...]
    parts: dict[str, tuple[str, ...]]


@functools.cache
def sections() -> tuple[Section, ...]:
    """Return all sections in the order of the document."""
    found = []
    for chapter in _split(DOCUMENT.read_text(encoding="utf-8"), "## "):
        title, *_ = chapter.splitlines()
        found += [_section(GROUPS[title], body) for body in _split(chapter, "### ")]
    return tuple(found)


# What follows each heading of one level; what stands before the first is left out.
def _split(text: str, mark: str) -> list[str]:
    return re.split(rf"^{re.escape(mark)}", text, flags=re.MULTILINE)[1:]


def _section(group: str, body: str) -> Section:
    name, summary, ladder, *rest = body.strip().split("\n\n")
    parts: dict[str, list[str]] = {}
    for paragraph in rest:
        if start := re.match(r"\*\*(.+?):\*\* ", paragraph):
            lines = parts.setdefault(start[1], [])
            lines += paragraph[start.end() :].splitlines()
        else:
            lines += ["", *paragraph.splitlines()]
    return Section(
        group,
        name,
        summary,
        tuple(ladder.splitlines()[1:-1]),
        {title: tuple(lines) for title, lines in parts.items()},
    )


def find(word: str) -> list[Section]:
    """Return the sections of a word: in any case, `-` for `_`, or as `watch` abbreviates it."""
    wanted = _normal(word)
    wanted = ALIASES.get(wanted, wanted)
    return [section for section in sections() if section.name == wanted]


def near(word: str) -> list[str]:
    """Return the words that may have been meant, the likeliest first."""
    known = list(dict.fromkeys(section.name for section in sections()))
    return difflib.get_close_matches(_normal(word), known, n=3, cutoff=SHORTEST_NEAR)


def _normal(word: str) -> str:
    return word.strip().lower().replace("-", "_")


def names() -> str:
    """Return all words, a line per group."""
    lines = []
    for title, group in GROUPS.items():
        words = [section.name for section in sections() if section.group == group]
        lines.append(f"{title.lower()}: {', '.join(words)}")
    return "\n".join(lines)


def as_text(section: Section, *, encoding: str | None, color: bool) -> str:
    """Return the section for a terminal."""
    ink = BOLD if color else ""
    lines = [f"{paint(section.name, ink)} ({section.group})", section.summary, ""]
    lines += [in_glyphs(line, encoding) for line in section.ladder]
    for title in section.parts:
        lines += ["", *part_lines(section, title, color=color)]
    return "\n".join(lines) + "\n"


def part_lines(section: Section, title: str, *, color: bool) -> list[str]:
    """Return one part, its title before the first line."""
    first, *rest = section.parts[title]
    return [f"{paint(f'{title}:', BOLD if color else '')} {first}", *rest]


def in_glyphs(line: str, encoding: str | None) -> str:
    """Return a line of a ladder in what the encoding has."""
    glyphs = glyphs_for(encoding)
    pairs = {getattr(UNICODE, f.name): getattr(glyphs, f.name) for f in fields(UNICODE)}
    return line.translate(str.maketrans(pairs))


def as_json(section: Section) -> str:
    """Return the section as one JSON object; a part is one string."""
    parts = {title: "\n".join(lines) for title, lines in section.parts.items()}
    return json.dumps(asdict(section) | {"parts": parts}) + "\n"


def listing(*, color: bool) -> str:
    """Return every word with its summary, by group."""
    lines = []
    for title, group in GROUPS.items():
        lines += ["", paint(title, BOLD if color else "")]
        lines += [
            f"  {section.name:<{NAME_WIDTH}} {section.summary}"
            for section in sections()
            if section.group == group
        ]
    return "\n".join(lines[1:]) + "\n"
