# SPDX-License-Identifier: Apache-2.0
"""`fourwave listeners`: queues, limits and drops of every listening socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tracer.outputs import findings as form
from tracer.outputs import table
from tracer.outputs.table import Column
from tracer.outputs.text import endpoint, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tracer.census import Census
    from tracer.detectors.listen_namespace import ListenNamespace
    from tracer.detectors.listen_overflow import ListenerFinding, ListenReport

    Cell = Callable[[ListenerFinding, dict[int, str]], str]

SORTS: Final[dict[str, Callable[[ListenerFinding], float]]] = {
    "severity": lambda f: -f.severity,
    "queue": lambda f: -f.queue.accept_queue,
    "peak": lambda f: -f.queue.accept_queue_peak,
    "drops": lambda f: -f.queue.drops,
    "port": lambda f: f.lport,
}
WILDCARDS: Final = {"0.0.0.0": "*", "::": "[*]"}  # noqa: S104 - text, not a socket


def as_lines(
    report: ListenReport, chosen: Sequence[ListenerFinding], census: Census, width: int,
    *, color: bool,
) -> list[str]:  # fmt: skip
    """Return the table of the chosen listeners, and what their namespaces count."""
    if not chosen:
        return [_none(report), *form.accounts(census)]
    names = form.netns_names(census)
    columns = _columns(several=len({f.netns for f in chosen}) > 1, wide=width >= form.WIDE)
    rows = [[get(f, names) for _, get in columns] for f in chosen]
    shown = table.lines([column for column, _ in columns], rows, width, color=color)
    below = [
        form.details(f.why, f.advice, width, color=color) if f.severity else [] for f in chosen
    ]
    inks = [form.INKS[f.severity] if color else "" for f in chosen]
    spaces = [line for space in report.namespaces for line in _namespace(space, names)]
    return [
        *form.interleave(shown, below, inks),
        "",
        f"{len(chosen):,} of {plural(report.listeners, 'listener')}.",
        *spaces,
        *_orphans(report.namespaces),
        *form.accounts(census),
    ]


def _none(report: ListenReport) -> str:
    if not report.listeners:
        return "No socket listens."
    return f"None of {plural(report.listeners, 'listener')} is what was asked for."


def _columns(*, several: bool, wide: bool) -> list[tuple[Column, Cell]]:
    columns: list[tuple[Column, Cell]] = [
        (Column("LISTENER", least=14), lambda f, _: _address(f)),
        (Column("HELD BY", least=14), lambda f, _: form.who(f.holders, f.holder_count)),
        (Column("QUEUE", right=True), lambda f, _: f"{f.queue.accept_queue:,}"),
        (Column("PEAK", right=True), lambda f, _: f"{f.queue.accept_queue_peak:,}"),
        (Column("LIMIT", right=True), lambda f, _: f"{f.queue.limit:,}"),
        (Column("BY"), lambda f, _: f.queue.limit_from or "-"),
        (Column("SYN", right=True), lambda f, _: f"{f.queue.syn_queue:,}"),
        (Column("DROPS", right=True), lambda f, _: _drops(f)),
    ]
    if several:
        columns.insert(0, (Column("NETNS", least=6), lambda f, n: n.get(f.netns, str(f.netns))))
    if wide:
        columns.insert(-6, (Column("UNIT", least=8), lambda f, _: f.unit or "-"))
        columns.append((Column("VERDICT"), lambda f, _: f.verdict.label.replace("_", " ")))
    return columns


def _address(finding: ListenerFinding) -> str:
    bound = WILDCARDS.get(finding.laddr)
    return f"{bound}:{finding.lport}" if bound else endpoint(finding.laddr, finding.lport)


def _drops(finding: ListenerFinding) -> str:
    since = finding.queue.drops_since
    return f"{finding.queue.drops:,}" + (f" +{since:,}" if since else "")


def _namespace(space: ListenNamespace, names: dict[int, str]) -> list[str]:
    if not space.drops:
        return []
    lately = ""
    if space.drops_since is not None:
        lately = f" ({space.drops_since:,} and {space.overflows_since or 0:,} while watched)"
    return [
        (
            f"netns {names.get(space.netns, space.netns)} since boot: "
            f"{plural(space.drops, 'drop')}, {space.overflows or 0:,} by a full queue{lately}."
        )
    ]


def _orphans(spaces: Sequence[ListenNamespace]) -> list[str]:
    known = [space for space in spaces if space.orphans is not None]
    if not known:
        return []
    limit = f" of at most {known[0].max_orphans:,}" if known[0].max_orphans else ""
    return [f"{plural(known[0].orphans or 0, 'orphan')} on this host{limit}."]


def as_json(
    report: ListenReport, chosen: Sequence[ListenerFinding], census: Census
) -> Iterator[str]:
    """Return a line per listener, then one per namespace."""
    names = form.netns_names(census)
    for finding in chosen:
        yield form.json_line("listener", _listener_json(finding, names))
    for space in report.namespaces:
        yield form.json_line("listen_total", _namespace_json(space, names, census))


def _listener_json(f: ListenerFinding, names: dict[int, str]) -> dict[str, Any]:
    return {
        "verdict": f.verdict.label,
        "severity": f.severity.label,
        "why": f.why,
        "advice": f.advice,
        "netns": f.netns,
        "netns_name": names.get(f.netns),
        "laddr": f.laddr,
        "lport": f.lport,
        "holders": form.holders_json(f.holders),
        "holder_count": f.holder_count,
        "unit": f.unit,
        "accept_queue": f.queue.accept_queue,
        "accept_queue_peak": f.queue.accept_queue_peak,
        "accept_queue_limit": f.queue.limit,
        "limit_from": f.queue.limit_from,
        "syn_queue": f.queue.syn_queue,
        "drops": f.queue.drops,
        "drops_since": f.queue.drops_since,
        "drops_per_minute": f.queue.drops_per_minute,
        "overflows": f.queue.overflows,
        "watched_s": f.queue.watched_s,
    }


def _namespace_json(
    space: ListenNamespace, names: dict[int, str], census: Census
) -> dict[str, Any]:
    return {
        "severity": space.severity.label,
        "netns": space.netns,
        "netns_name": names.get(space.netns),
        "overflows": space.overflows,
        "overflows_since": space.overflows_since,
        "drops": space.drops,
        "drops_since": space.drops_since,
        "syncookies_sent": space.syncookies_sent,
        "syn_queue_full": space.syn_queue_full,
        "somaxconn": space.somaxconn,
        "orphans": space.orphans,
        "max_orphans": space.max_orphans,
        "mono_ns": census.mono_ns,
        "mechanism": census.mechanism,
        "left_out": dict(census.truncated),
    }
