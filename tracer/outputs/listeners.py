# SPDX-License-Identifier: Apache-2.0
"""`fourwave listeners`: queues, limits and drops of every listening socket."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tracer.outputs import findings as form
from tracer.outputs.table import Column
from tracer.outputs.text import duration, endpoint, plural
from tracer.tcp import WAITED_MAX_US

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tracer.census import Census
    from tracer.detectors.accept_waits import AcceptWait
    from tracer.detectors.listen_namespace import ListenNamespace
    from tracer.detectors.listen_overflow import ListenerFinding, ListenReport

    ByPort = Mapping[tuple[int, int], AcceptWait]
    Cell = Callable[[ListenerFinding], str]

SORTS: Final[dict[str, Callable[[ListenerFinding], float]]] = {
    "severity": lambda f: -f.severity,
    "queue": lambda f: -f.queue.accept_queue,
    "peak": lambda f: -f.queue.accept_queue_peak,
    "drops": lambda f: -f.queue.drops,
    "port": lambda f: f.lport,
}


@dataclass(frozen=True, slots=True)
class Waits:
    """Waits for accept(), by network namespace and port, as far as they are known.

    `left_out`: how many were not told apart.
    """

    by_port: ByPort = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)


WILDCARDS: Final = {"0.0.0.0": "*", "::": "[*]"}  # noqa: S104 - text, not a socket


def as_lines(
    report: ListenReport, chosen: Sequence[ListenerFinding], census: Census, waits: Waits,
    width: int, *, color: bool,
) -> list[str]:  # fmt: skip
    """Return the table of the chosen listeners, and what their namespaces count."""
    if not chosen:
        return [_none(report), *form.accounts(census, waits.left_out)]
    names, spaces = form.netns_names(census), {space.netns: space for space in report.namespaces}
    columns = _columns(waits.by_port, wide=width >= form.WIDE)
    lines: list[str] = []
    for netns, mine in form.by_netns(chosen).items():
        words = _heading(netns, spaces.get(netns), names)
        lines += form.heading(words, width, color=color)
        lines += [*form.judged(columns, mine, width, color=color), ""]
    shown = f"{len(chosen):,} of {plural(report.listeners, 'listener')}. "
    return [
        *lines,
        *form.wrapped(shown + _orphans(report.namespaces), width),
        *form.accounts(census, waits.left_out),
    ]


def _none(report: ListenReport) -> str:
    if not report.listeners:
        return "No socket listens."
    return f"None of {plural(report.listeners, 'listener')} is what was asked for."


def _columns(waits: ByPort, *, wide: bool) -> list[tuple[Column, Cell]]:
    columns: list[tuple[Column, Cell]] = [
        (Column("LISTENER", least=12), _address),
        (Column("HELD BY", least=12), lambda f: form.who(f.holders, f.holder_count)),
        (Column("QUEUE", right=True), lambda f: f"{f.queue.accept_queue:,}"),
        (Column("PEAK", right=True), lambda f: f"{f.queue.accept_queue_peak:,}"),
        (Column("LIMIT", right=True), lambda f: f"{f.queue.limit:,}"),
        *([] if waits and not wide else [(Column("BY"), lambda f: f.queue.limit_from or "-")]),
        (Column("SYN", right=True), lambda f: f"{f.queue.syn_queue:,}"),
        (Column("DROPS", right=True), _drops),
    ]
    if waits:
        columns.append((Column("WAIT", right=True), lambda f: _wait(waits.get((f.netns, f.lport)))))
    if wide:
        columns.append((Column("VERDICT"), lambda f: f.verdict.label.replace("_", " ")))
        columns.append((Column("UNIT", least=8), lambda f: f.unit or "-"))
    return columns


def _address(finding: ListenerFinding) -> str:
    bound = WILDCARDS.get(finding.laddr)
    return f"{bound}:{finding.lport}" if bound else endpoint(finding.laddr, finding.lport)


def _drops(finding: ListenerFinding) -> str:
    since = finding.queue.drops_since
    return f"{finding.queue.drops:,}" + (f" +{since:,}" if since else "")


def _wait(wait: AcceptWait | None) -> str:
    if wait is None:
        return "-"
    return ("≥" if wait.p99_us == WAITED_MAX_US else "") + duration(wait.p99_us)


def _heading(netns: int, space: ListenNamespace | None, names: dict[int, str]) -> str:
    words = f"netns {names.get(netns, netns)}"
    if space is None or not space.drops:
        return words
    since = ""
    if space.drops_since is not None and (space.drops_since or space.overflows_since):
        since = f"; {space.drops_since:,} and {space.overflows_since or 0:,} while watched"
    drops = plural(space.drops, "drop")
    return f"{words}: {drops} so far, {space.overflows or 0:,} by a full queue{since}"


def _orphans(spaces: Sequence[ListenNamespace]) -> str:
    known = [space for space in spaces if space.orphans is not None]
    if not known:
        return ""
    limit = f" of at most {known[0].max_orphans:,}" if known[0].max_orphans else ""
    return f"{plural(known[0].orphans or 0, 'orphan')} on this host{limit}."


def as_json(
    report: ListenReport, chosen: Sequence[ListenerFinding], census: Census, waits: Waits
) -> Iterator[str]:
    """Return a line per listener, then one per namespace."""
    names = form.netns_names(census)
    for finding in chosen:
        wait = waits.by_port.get((finding.netns, finding.lport))
        yield form.json_line("listener", _listener_json(finding, wait, names))
    for space in report.namespaces:
        yield form.json_line("listen_total", _namespace_json(space, names, census, waits))


def _listener_json(
    f: ListenerFinding, wait: AcceptWait | None, names: dict[int, str]
) -> dict[str, Any]:
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
        "oldest_wait_s": f.queue.oldest_wait_s,
        "syn_queue": f.queue.syn_queue,
        "drops": f.queue.drops,
        "drops_since": f.queue.drops_since,
        "drops_per_minute": f.queue.drops_per_minute,
        "overflows": f.queue.overflows,
        "watched_s": f.queue.watched_s,
        "accept_wait": wait and asdict(wait),
    }


def _namespace_json(
    space: ListenNamespace, names: dict[int, str], census: Census, waits: Waits
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
        "left_out": form.left_out(census, waits.left_out),
    }
