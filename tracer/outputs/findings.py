# SPDX-License-Identifier: Apache-2.0
"""What the tables of findings share: who, where, how grave, why and what to do."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from tracer.census import SocketFlag
from tracer.close_text import harmless
from tracer.detectors.finding import Severity
from tracer.outputs import table
from tracer.outputs.text import BOLD, DIM, RED, YELLOW, duration, paint, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tracer.census import Census
    from tracer.detectors.holders import Holder
    from tracer.outputs.table import Column


class HasNetns(Protocol):
    """A finding of one namespace."""

    @property
    def netns(self) -> int:
        """Inode number."""


class Judged(Protocol):
    """A finding with a verdict: how grave it is, why, and what to do."""

    @property
    def severity(self) -> Severity:
        """How soon somebody should care."""

    @property
    def why(self) -> str:
        """One sentence."""

    @property
    def advice(self) -> str:
        """What to do; may be empty."""


InNetns = TypeVar("InNetns", bound=HasNetns)
Verdict = TypeVar("Verdict", bound=Judged)

VERSION: Final = 1
"""Of the JSON objects; keys may be added without a new one."""
INKS: Final = {
    Severity.OK: "",
    Severity.NOTICE: "",
    Severity.WARNING: YELLOW,
    Severity.CRITICAL: RED,
}
INDENT: Final = "    "
UNSEEN: Final = (
    "NOBODY was found who holds any of {sockets}: processes of another PID namespace are not seen. "
    "Run it in the host's."
)
WIDE: Final = 110
US_PER_MS: Final = 1_000
SAME_MS: Final = 1_000
SAME_SHARE: Final = 0.05
US_PER_S: Final = 1_000_000


def who(holders: Sequence[Holder], count: int) -> str:
    """Return comm[pid], and how many more hold it."""
    if not holders:
        return "-"
    more = f" +{count - 1}" if count > 1 else ""
    return f"{holders[0].comm}[{holders[0].pid}]{more}"


def rate(per_minute: float | None) -> str:
    """Return growth per minute with its sign."""
    if per_minute is None:
        return "-"
    if not per_minute:
        return "0"
    return f"{per_minute:+,.0f}" if abs(per_minute) >= 10 else f"{per_minute:+,.1f}"


def age(at_least_ms: int, at_most_ms: int | None) -> str:
    """Return a duration; a lower bound is marked, unless the upper one is hardly another."""
    shown = duration(at_least_ms * US_PER_MS)
    if at_most_ms is None or at_most_ms - at_least_ms > max(SAME_MS, SAME_SHARE * at_most_ms):
        return f"≥{shown}"
    return shown


def seconds(span_s: float | None) -> str:
    """Return a duration."""
    return "-" if span_s is None else duration(int(span_s * US_PER_S))


def netns_names(census: Census) -> dict[int, str]:
    """Return what to call each namespace: the name `ip netns` has for it, else its number."""
    return {
        inum: (harmless(facts.name.encode("utf-8", "surrogateescape")) if facts.name else str(inum))
        for inum, facts in census.namespaces.items()
    }


def by_netns(findings: Iterable[InNetns]) -> dict[int, list[InNetns]]:
    """Return the findings of each namespace, in the order of the first of each."""
    sections: dict[int, list[InNetns]] = {}
    for finding in findings:
        sections.setdefault(finding.netns, []).append(finding)
    return sections


def heading(words: str, width: int, *, color: bool) -> list[str]:
    """Return a title over what follows."""
    lines = textwrap.wrap(words, width, subsequent_indent=INDENT)
    return [paint(line, BOLD if color else "") for line in lines]


def details(why: str, advice: str, width: int, *, color: bool) -> list[str]:
    """Return why, and below it what to do."""
    room = min(width, 100)
    lines = textwrap.wrap(why, room, initial_indent=INDENT, subsequent_indent=INDENT)
    if advice:
        lines += textwrap.wrap(
            f"-> {advice}", room, initial_indent=INDENT, subsequent_indent=f"{INDENT}   "
        )
    return [paint(line, DIM if color else "") for line in lines]


def judged(
    columns: Sequence[tuple[Column, Callable[[Verdict], str]]],
    chosen: Sequence[Verdict],
    width: int,
    *,
    color: bool,
) -> list[str]:
    """Return a row per finding; where all is not well, why and what to do below it."""
    rows = [[cell(f) for _, cell in columns] for f in chosen]
    shown = table.lines([column for column, _ in columns], rows, width, color=color)
    below = [details(f.why, f.advice, width, color=color) if f.severity else [] for f in chosen]
    return interleave(shown, below, [INKS[f.severity] if color else "" for f in chosen])


def interleave(
    shown: Sequence[str], below: Iterable[Sequence[str]], inks: Iterable[str]
) -> list[str]:
    """Return the title, then each row in its ink with what belongs below it."""
    title, *rows = shown
    lines = [title]
    for row, more, ink in zip(rows, below, inks, strict=True):
        lines += [paint(row, ink), *more]
    return lines


def holders_json(holders: Sequence[Holder]) -> list[dict[str, Any]]:
    """Return the holders for JSON."""
    return [{"pid": holder.pid, "comm": holder.comm, "cgroup": holder.cgroup} for holder in holders]


def json_line(kind: str, at: dict[str, Any]) -> str:
    """Return one object as a line: version and what it is come first."""
    return json.dumps({"v": VERSION, "type": kind, **at}) + "\n"


def left_out(census: Census, closes: Mapping[str, int]) -> dict[str, int]:
    """Return how many were left out of what, in a census and of the closes followed beside it."""
    return {**census.truncated, **{what: count for what, count in closes.items() if count}}


def wrapped(words: str, width: int) -> list[str]:
    """Return a sentence as lines."""
    return textwrap.wrap(words, width)


def accounts(census: Census, closes: Mapping[str, int] | None = None) -> list[str]:
    """Return what was left out, and why it was not taken the best way; nothing when all is well.

    `closes`: what was left out of the closes that were followed beside the census.
    """
    lines = [_left_out(where, count) for where, count in census.truncated.items() if count]
    lines += [
        f"LEFT OUT {count:,} {what}: more than are told apart."
        for what, count in (closes or {}).items()
        if count
    ]
    held = int(((census.sockets["flags"] & SocketFlag.HAS_SOCKET) != 0).sum())
    if held and not len(census.owners):
        lines += textwrap.wrap(UNSEEN.format(sockets=plural(held, "socket")), 79)
    if census.reason:
        lines += textwrap.wrap(f"Taken by {census.mechanism}: {census.reason}", 79)
    return lines


def _left_out(where: str, count: int) -> str:
    if where == "namespaces":
        return f"LEFT OUT {plural(count, 'network namespace')}: not found, or not to be entered."
    return f"LEFT OUT {count:,} {where}: more than the census holds, or not readable."
