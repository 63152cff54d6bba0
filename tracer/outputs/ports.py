# SPDX-License-Identifier: Apache-2.0
"""`fourwave ports`: local ports per destination, and who owns the TIME_WAITs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tracer.detectors.finding import Severity
from tracer.outputs import findings as form
from tracer.outputs import table
from tracer.outputs.table import Column
from tracer.outputs.text import endpoint, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tracer.census import Census
    from tracer.detectors.local_ports import PortsFinding
    from tracer.detectors.port_failures import PortFailure
    from tracer.detectors.port_users import PortUser
    from tracer.detectors.time_wait import TimeWaitFinding, TimeWaitTotal

    PortCell = Callable[[PortsFinding], str]
    ServiceCell = Callable[[TimeWaitFinding], str]

SORTS: Final[dict[str, Callable[[PortsFinding], float]]] = {
    "severity": lambda f: -f.severity,
    "taken": lambda f: -(f.in_use + f.time_wait + f.fin_wait2),
    "available": lambda f: f.available if f.available is not None else float("inf"),
    "time_wait": lambda f: -f.time_wait,
    "rate": lambda f: -f.entered_per_s,
}
REUSE: Final = {0: "off", 1: "on", 2: "loopback only"}
FAILURES_SHOWN: Final = 5
MANY: Final = 1_000  # TIME_WAITs about which advice is worth a line
BARS: Final = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Ports:
    """What there is to show; `failures` None: not traced. `left_out`: of closes, by what.

    `not_shown`: how many more there are, by what they are.
    """

    chosen: Sequence[PortsFinding]
    served: Sequence[TimeWaitFinding]
    totals: Sequence[TimeWaitTotal]
    failures: Sequence[PortFailure] | None
    left_out: Mapping[str, int] = field(default_factory=dict)
    not_shown: Mapping[str, int] = field(default_factory=dict)


def as_lines(found: Ports, census: Census, width: int, *, color: bool) -> list[str]:
    """Return a section per namespace: destinations, and services that close first."""
    names, by_number = form.netns_names(census), {total.netns: total for total in found.totals}
    destinations, services = form.by_netns(found.chosen), form.by_netns(found.served)
    lines: list[str] = []
    for netns in _gravest_first(destinations, services, by_number):
        total = by_number[netns]
        lines += form.heading(_heading(total, names, census), width, color=color)
        if netns in destinations:
            lines += _ports(destinations[netns], width, color=color)
        if netns in services:
            lines += _served(services[netns], width, color=color)
        lines += [*_total(total, width, color=color), ""]
    return [
        *(lines[:-1] or [_none(census)]),
        *(f"({plural(count, what)} not shown)" for what, count in found.not_shown.items() if count),
        *_failures(found.failures or (), names),
        *form.accounts(census, found.left_out),
    ]


# In the order they are in, but for what a namespace's total tells: it is as grave.
def _gravest_first(
    destinations: Mapping[int, Sequence[PortsFinding]],
    services: Mapping[int, Sequence[TimeWaitFinding]],
    totals: Mapping[int, TimeWaitTotal],
) -> list[int]:
    def gravity(netns: int) -> int:
        told = [finding.severity for finding in destinations.get(netns, ())]
        return max(totals[netns].severity, *told, Severity.OK)

    return sorted({**destinations, **services}, key=lambda netns: -gravity(netns))


def _none(census: Census) -> str:
    there = int((census.ports["inbound"] == 0).sum())
    if there:
        return f"None of {plural(there, 'destination')} is what was asked for."
    return "No local port is taken."


def _failures(failures: Sequence[PortFailure], names: dict[int, str]) -> list[str]:
    if not failures:
        return []
    total = sum(failure.count for failure in failures)
    lines = ["", f"connect() found no local port {total:,} times while watched:"]
    lines += [
        f"{form.INDENT}{f.count:,} {f.comm}[{f.pid}] to {endpoint(f.raddr, f.rport)}, "
        f"netns {names.get(f.netns, f.netns)}"
        for f in failures[:FAILURES_SHOWN]
    ]
    left = len(failures) - FAILURES_SHOWN
    return [*lines, f"{form.INDENT}({left:,} more)"] if left > 0 else lines


def _heading(total: TimeWaitTotal, names: dict[int, str], census: Census) -> str:
    facts, count = census.namespaces.get(total.netns), total.served + total.connected
    limit = "" if total.max_tw_buckets is None else f" of at most {total.max_tw_buckets:,}"
    words = f"netns {names.get(total.netns, total.netns)}: {count:,} in TIME_WAIT{limit}"
    if facts is None or facts.port_range is None:
        return words
    low, high = facts.port_range
    reserved = sum(last - first + 1 for first, last in facts.reserved_ports)
    beside = f" but {reserved:,} reserved" if reserved else ""
    reuse = REUSE.get(facts.tw_reuse, "?") if facts.tw_reuse is not None else "?"
    return f"{words}, ports {low}-{high}{beside}, tcp_tw_reuse {reuse}"


def _ports(chosen: Sequence[PortsFinding], width: int, *, color: bool) -> list[str]:
    columns = _columns(sources=_sources_matter(chosen), wide=width >= form.WIDE)
    return form.judged(columns, chosen, width, color=color)


def _columns(*, sources: bool, wide: bool) -> list[tuple[Column, PortCell]]:
    columns: list[tuple[Column, PortCell]] = [
        (Column("DESTINATION", least=14), lambda f: endpoint(f.raddr, f.rport))
    ]
    if sources or wide:
        columns.append((Column("FROM", least=9), lambda f: f.laddr))
    if wide or not sources:
        columns.append((Column("USED BY", least=9, idle="-"), _users))
    columns += [
        (Column("USED", right=True), lambda f: f"{f.in_use:,}"),
        (Column("TIME_WAIT", right=True), lambda f: f"{f.time_wait:,}"),
        (Column("FIN_WAIT2", right=True, idle="0"), lambda f: f"{f.fin_wait2:,}"),
        (Column("LEFT", right=True), _left),
        (Column("PER S", right=True, idle="0"), lambda f: f"{f.entered_per_s:,.0f}"),
        (Column("OUT IN", right=True, idle="-"), _out_in),
    ]
    if wide:
        columns.append((Column("ENDS IN 0-60 S"), lambda f: bars(f.remaining)))
    return columns


# In a narrow table a source is shown only where a destination has several.
def _sources_matter(chosen: Sequence[PortsFinding]) -> bool:
    sources: dict[tuple[str, int], set[str]] = {}
    for f in chosen:
        sources.setdefault((f.raddr, f.rport), set()).add(f.laddr)
    return any(len(addrs) > 1 for addrs in sources.values())


# Short connections are open at no census: then who opened those that have ended.
def _users(finding: PortsFinding) -> str:
    users = finding.users or finding.openers
    return form.who([user.holder for user in users], len(users))


def _out_in(finding: PortsFinding) -> str:
    return "now" if finding.exhausted_in_s == 0 else form.seconds(finding.exhausted_in_s)


def _users_json(users: Sequence[PortUser]) -> list[dict[str, Any]]:
    return [{"pid": u.holder.pid, "comm": u.holder.comm, "count": u.count} for u in users]


def _left(finding: PortsFinding) -> str:
    if finding.available is None:
        return "-"
    return f"{finding.available:,}"


def _served(served: Sequence[TimeWaitFinding], width: int, *, color: bool) -> list[str]:
    columns: list[tuple[Column, ServiceCell]] = [
        (Column("SERVICE"), lambda f: f":{f.lport}"),
        (Column("HELD BY", least=9, idle="-"), lambda f: form.who(f.holders, f.holder_count)),
        (Column("USED", right=True), lambda f: f"{f.in_use:,}"),
        (Column("TIME_WAIT", right=True), lambda f: f"{f.time_wait:,}"),
        (Column("SHARE", right=True), lambda f: f"{100 * f.share:.0f} %"),
        (Column("FIN_WAIT2", right=True, idle="0"), lambda f: f"{f.fin_wait2:,}"),
        (Column("PER S", right=True, idle="0"), lambda f: f"{f.entered_per_s:,.0f}"),
        (Column("ENDS IN 0-60 S"), lambda f: bars(f.remaining)),
    ]
    rows = [[get(f) for _, get in columns] for f in served]
    return table.lines([column for column, _ in columns], rows, width, color=color)


def bars(remaining: Sequence[int]) -> str:
    """Return how many TIME_WAITs end when, a bar for five seconds; blank for none."""
    most = max(remaining, default=0)
    return "".join(
        BARS[(len(BARS) - 1) * count // most] if count else " " for count in remaining
    ).rstrip()


def _total(total: TimeWaitTotal, width: int, *, color: bool) -> list[str]:
    count, lines = total.served + total.connected, []
    if total.overflowed:
        ended = plural(total.overflowed, "connection")
        lines.append(f"{ended} ended without TIME_WAIT: the limit was reached.")
    if total.severity or count >= MANY:
        lines += form.details(total.why, total.advice, width, color=color)
    return lines


def as_json(found: Ports, census: Census) -> Iterator[str]:
    """Return a line per destination, per service, per namespace, per failing process."""
    names = form.netns_names(census)
    for port in found.chosen:
        yield form.json_line("local_ports", _port_json(port, names))
    for service in found.served:
        yield form.json_line("time_wait", _service_json(service, names))
    for total in found.totals:
        yield form.json_line("time_wait_total", _total_json(total, names, census, found))
    for failure in found.failures or ():
        yield form.json_line("port_failure", asdict(failure))


def _port_json(f: PortsFinding, names: dict[int, str]) -> dict[str, Any]:
    return {
        "verdict": f.verdict.label,
        "severity": f.severity.label,
        "why": f.why,
        "advice": f.advice,
        "netns": f.netns,
        "netns_name": names.get(f.netns),
        "laddr": f.laddr,
        "raddr": f.raddr,
        "rport": f.rport,
        "in_use": f.in_use,
        "time_wait": f.time_wait,
        "fin_wait2": f.fin_wait2,
        "users": _users_json(f.users),
        "openers": _users_json(f.openers),
        "remaining": list(f.remaining),
        "capacity": f.capacity,
        "available": f.available,
        "reusable": f.reusable,
        "entered_per_s": f.entered_per_s,
        "exhausted_in_s": f.exhausted_in_s,
    }


def _service_json(f: TimeWaitFinding, names: dict[int, str]) -> dict[str, Any]:
    return {
        "netns": f.netns,
        "netns_name": names.get(f.netns),
        "lport": f.lport,
        "holders": form.holders_json(f.holders),
        "holder_count": f.holder_count,
        "in_use": f.in_use,
        "time_wait": f.time_wait,
        "fin_wait2": f.fin_wait2,
        "share": f.share,
        "remaining": list(f.remaining),
        "entered_per_s": f.entered_per_s,
        "advice": f.advice,
    }


def _total_json(
    f: TimeWaitTotal, names: dict[int, str], census: Census, found: Ports
) -> dict[str, Any]:
    facts = census.namespaces.get(f.netns)
    return {
        "severity": f.severity.label,
        "why": f.why,
        "advice": f.advice,
        "netns": f.netns,
        "netns_name": names.get(f.netns),
        "served": f.served,
        "connected": f.connected,
        "fin_wait2": f.fin_wait2,
        "max_tw_buckets": f.max_tw_buckets,
        "overflowed": f.overflowed,
        "port_range": list(facts.port_range) if facts and facts.port_range else None,
        "tw_reuse": facts.tw_reuse if facts else None,
        "mono_ns": census.mono_ns,
        "mechanism": census.mechanism,
        "left_out": form.left_out(census, found.left_out),
    }
