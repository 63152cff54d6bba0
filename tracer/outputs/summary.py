# SPDX-License-Identifier: Apache-2.0
"""What a run came to: closes by kind and handshake, resets by cause, and what was lost."""

from __future__ import annotations

import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Final

from tracer.outputs.summary_evidence import evidence
from tracer.outputs.text import plural
from tracer.tcp import FinAck, Handshake, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tracer.aggregator import Snapshot
    from tracer.tcp import Cause

WIDTH: Final = 79
BY_FIN: Final = (Handshake.FOUR_WAY, Handshake.THREE_WAY, Handshake.SIMULTANEOUS)
COLUMNS: Final = (
    (Handshake.FOUR_WAY, "FOUR_WAY"),
    (Handshake.THREE_WAY, "THREE_WAY"),
    (Handshake.SIMULTANEOUS, "SIMULTANEOUS"),
    (Handshake.NONE, "NO_HANDSHAKE"),
)
CARRIERS: Final = (
    (FinAck.FIN, "on the other FIN"),
    (FinAck.PURE, "alone"),
    (FinAck.DATA, "on data"),
)
# The kinds that have a cause, and what to call them.
CAUSED: Final = (
    (Kind.ABORT, "RST sent"),
    (Kind.RESET, "RST received"),
    (Kind.TIMEOUT, "Timed out"),
    (Kind.REFUSED, "Refused"),
)
LOSS_REMEDIES: Final = {
    "ring_full": "closes came faster than they were fetched: give fourwave more CPU",
    "conn_map_full": "more connections at once than are followed",
    "unseen": "the kernel did not run the programs when these sockets ended",
    "decode": "bytes that are not records: kernel side and decoder differ",
}
# What was counted by its name, and what it means.
SHORTCOMINGS: Final = (
    ("unknown_sockets", "socket", "older than the tracer: what came before is not known"),
    ("gaps", "state change", "missed: the closes they belong to say unknown"),
    ("second_children", "socket", "undone by the kernel, its handshake's ACK came twice: no close"),
    ("missed", "state change", "ran none of our programs: their closes say unknown"),
    ("resets_lost", "report", "of a RST of ours lost: those closes may tell less"),
    ("resets_unmatched", "report", "of a RST of ours found no close: it was lost, or told before"),
)


def as_text(snapshot: Snapshot) -> str:
    """Return some lines of text, each ended, starting with an empty one."""
    lines = ["", *_head(snapshot), *_table(snapshot), *_carriers(snapshot), *_causes(snapshot)]
    return "\n".join([*lines, *evidence(snapshot), *_accounts(snapshot)]) + "\n"


def _head(snapshot: Snapshot) -> Iterator[str]:
    others = snapshot.records - snapshot.shown
    beside = f" ({others:,} more not shown)" if others else ""
    yield f"{plural(snapshot.shown, 'close')}{beside}"


def _table(snapshot: Snapshot) -> Iterator[str]:
    kinds = [kind for kind in Kind if any((kind, shake) in snapshot.closes for shake in Handshake)]
    if not kinds:
        return
    yield ""
    yield f"{'KIND':<15}" + "".join(f"{name:>14}" for _, name in COLUMNS)
    for kind in kinds:
        cells = (snapshot.closes.get((kind, shake), 0) for shake, _ in COLUMNS)
        yield f"{kind.label:<15}" + "".join(f"{_count(cell):>14}" for cell in cells)
    yield ""


def _count(number: int) -> str:
    return f"{number:,}" if number else "-"


def _carriers(snapshot: Snapshot) -> Iterator[str]:
    by_shake = {shake: _sum_of(snapshot, shake) for shake in BY_FIN}
    total = sum(by_shake.values())
    if not total:
        return
    share = 100 * by_shake[Handshake.THREE_WAY] / total
    yield f"Three segments were enough for {share:.1f} % of {plural(total, 'close')} by FIN."
    carried = [
        f"{snapshot.fin_acks[carrier]:,} {words}"
        for carrier, words in CARRIERS
        if carrier in snapshot.fin_acks
    ]
    if carried:
        yield f"The ACK of the first FIN came: {', '.join(carried)}."


def _sum_of(snapshot: Snapshot, wanted: Handshake) -> int:
    return sum(count for (_, shake), count in snapshot.closes.items() if shake is wanted)


def _causes(snapshot: Snapshot) -> Iterator[str]:
    for kind, words in CAUSED:
        causes = Counter({cause: n for (of, cause), n in snapshot.causes.items() if of is kind})
        if kind is Kind.ABORT:
            causes -= Counter(snapshot.silent)
        yield from _line(words, causes)
    yield from _line("Forgotten without a RST", snapshot.silent)


def _line(words: str, causes: Mapping[Cause, int]) -> list[str]:
    if not causes:
        return []
    line = f"{words}: {sum(causes.values()):,} ({_ranked(causes)})"
    return textwrap.wrap(line, WIDTH, subsequent_indent="  ")


def _ranked(causes: Mapping[Cause, int]) -> str:
    ranked = sorted(causes.items(), key=lambda item: -item[1])
    return ", ".join(f"{cause.label or 'no cause'} {count:,}" for cause, count in ranked)


def _accounts(snapshot: Snapshot) -> Iterator[str]:
    kernel = {**snapshot.kernel, "resets_unmatched": snapshot.resets_unmatched}
    for name, noun, words in SHORTCOMINGS:
        if count := kernel.get(name, 0):
            yield f"{plural(count, noun)} {words}."
    if snapshot.contradicted:
        closes = plural(snapshot.contradicted, "close")
        yield f"A hook and the counters contradict each other about {closes}: please report it."
    if snapshot.resets_unseen:
        unseen = plural(snapshot.resets_unseen, "RST")
        yield f"The hook for TIME_WAIT missed what led to {unseen}: please report it."
    yield from _losses(snapshot)
    yield _balance(snapshot)


def _losses(snapshot: Snapshot) -> Iterator[str]:
    for where, count in snapshot.lost.items():
        if count:
            yield f"LOST {plural(count, 'close')}, {where}: {LOSS_REMEDIES[where]}."


def _balance(snapshot: Snapshot) -> str:
    seen, unaccounted = snapshot.kernel.get("closes"), snapshot.unaccounted
    if seen is None or unaccounted is None:
        return "The kernel's own totals did not come: whether closes were lost is not known."
    if unaccounted:
        return f"UNACCOUNTED: {unaccounted:,} of the {plural(seen, 'close')} the kernel saw."
    if snapshot.lost_total:
        return f"The kernel saw {plural(seen, 'close')}; all others are accounted for."
    later = snapshot.records - seen
    since = f", {later:,} more came while the totals were read" if later > 0 else ""
    return f"Nothing lost: the kernel saw {plural(seen, 'close')}{since}."
