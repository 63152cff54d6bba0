# SPDX-License-Identifier: Apache-2.0
"""`fourwave ports`: local ports per destination, and who owns the TIME_WAITs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tracer.outputs import findings as form
from tracer.outputs import table
from tracer.outputs.table import Column
from tracer.outputs.text import BOLD, endpoint, paint, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tracer.census import Census
    from tracer.detectors.local_ports import PortsFinding
    from tracer.detectors.time_wait import TimeWaitFinding, TimeWaitTotal

    PortCell = Callable[[PortsFinding, dict[int, str]], str]
    ServiceCell = Callable[[TimeWaitFinding, dict[int, str]], str]

SORTS: Final[dict[str, Callable[[PortsFinding], float]]] = {
    "severity": lambda f: -f.severity,
    "taken": lambda f: -(f.in_use + f.time_wait + f.fin_wait2),
    "available": lambda f: f.available if f.available is not None else float("inf"),
    "time_wait": lambda f: -f.time_wait,
    "rate": lambda f: -f.entered_per_s,
}
REUSE: Final = {0: "off", 1: "on", 2: "loopback only"}
BARS: Final = "▁▂▃▄▅▆▇█"


def as_lines(
    chosen: Sequence[PortsFinding], served: Sequence[TimeWaitFinding],
    totals: Sequence[TimeWaitTotal], census: Census, width: int, *, color: bool,
) -> list[str]:  # fmt: skip
    """Return destinations, services that close first, and each namespace's settings."""
    names = form.netns_names(census)
    several = len({*(f.netns for f in chosen), *(f.netns for f in served)}) > 1
    ink = BOLD if color else ""
    lines: list[str] = []
    if chosen:
        lines += [paint("Local ports, per destination", ink)]
        lines += [*_ports(chosen, names, width, several=several, color=color), ""]
    if served:
        lines += [paint("TIME_WAIT of our services: no local port is spent", ink)]
        lines += [*_served(served, names, width, several=several, color=color), ""]
    lines += [line for total in totals for line in _total(total, names, census, width)]
    return [*(lines or ["No local port is taken."]), *form.accounts(census)]


def _ports(
    chosen: Sequence[PortsFinding], names: dict[int, str], width: int, *, several: bool, color: bool
) -> list[str]:
    columns: list[tuple[Column, PortCell]] = [
        (Column("DESTINATION", least=16), lambda f, _: endpoint(f.raddr, f.rport)),
        (Column("FROM", least=9), lambda f, _: f.laddr),
        (Column("USED", right=True), lambda f, _: f"{f.in_use:,}"),
        (Column("TIME_WAIT", right=True), lambda f, _: f"{f.time_wait:,}"),
        (Column("LEFT", right=True), lambda f, _: _left(f)),
        (Column("PER S", right=True), lambda f, _: f"{f.entered_per_s:,.0f}"),
        (Column("OUT IN", right=True), lambda f, _: form.seconds(f.exhausted_in_s)),
    ]
    if width >= form.WIDE:
        columns.insert(4, (Column("FIN_WAIT2", right=True), lambda f, _: f"{f.fin_wait2:,}"))
        columns.append((Column("ENDS IN 0-60 S"), lambda f, _: bars(f.remaining)))
    if several:
        columns.insert(0, (Column("NETNS", least=6), lambda f, n: n.get(f.netns, str(f.netns))))
    rows = [[get(f, names) for _, get in columns] for f in chosen]
    shown = table.lines([column for column, _ in columns], rows, width, color=color)
    below = [
        form.details(f.why, f.advice, width, color=color) if f.severity else [] for f in chosen
    ]
    inks = [form.INKS[f.severity] if color else "" for f in chosen]
    return form.interleave(shown, below, inks)


def _left(finding: PortsFinding) -> str:
    if finding.available is None:
        return "-"
    return f"{finding.available:,}"


def _served(
    served: Sequence[TimeWaitFinding],
    names: dict[int, str],
    width: int,
    *,
    several: bool,
    color: bool,
) -> list[str]:
    columns: list[tuple[Column, ServiceCell]] = [
        (Column("PORT", right=True), lambda f, _: f":{f.lport}"),
        (Column("OPEN", right=True), lambda f, _: f"{f.in_use:,}"),
        (Column("TIME_WAIT", right=True), lambda f, _: f"{f.time_wait:,}"),
        (Column("SHARE", right=True), lambda f, _: f"{100 * f.share:.0f} %"),
        (Column("FIN_WAIT2", right=True), lambda f, _: f"{f.fin_wait2:,}"),
        (Column("PER S", right=True), lambda f, _: f"{f.entered_per_s:,.0f}"),
        (Column("ENDS IN 0-60 S"), lambda f, _: bars(f.remaining)),
    ]
    if several:
        columns.insert(0, (Column("NETNS", least=6), lambda f, n: n.get(f.netns, str(f.netns))))
    rows = [[get(f, names) for _, get in columns] for f in served]
    return table.lines([column for column, _ in columns], rows, width, color=color)


def bars(remaining: Sequence[int]) -> str:
    """Return how many TIME_WAITs end when, a bar for five seconds; blank for none."""
    most = max(remaining, default=0)
    return "".join(
        BARS[(len(BARS) - 1) * count // most] if count else " " for count in remaining
    ).rstrip()


def _total(total: TimeWaitTotal, names: dict[int, str], census: Census, width: int) -> list[str]:
    facts = census.namespaces.get(total.netns)
    count = total.served + total.connected
    if not count and not total.fin_wait2:
        return []
    limit = "" if total.max_tw_buckets is None else f" of at most {total.max_tw_buckets:,}"
    lines = [
        f"netns {names.get(total.netns, total.netns)}: {count:,} in TIME_WAIT{limit}; {total.why}"
    ]
    if facts is not None and facts.port_range is not None:
        low, high = facts.port_range
        reuse = REUSE.get(facts.tw_reuse, "?") if facts.tw_reuse is not None else "?"
        lines.append(
            f"    ports {low}-{high}{_reserved(facts.reserved_ports)}; tcp_tw_reuse: {reuse}"
        )
    if total.overflowed:
        lines.append(
            f"    {plural(total.overflowed, 'connection')} ended without it: the limit was reached"
        )
    if total.advice and count:
        lines += form.details("", total.advice, width, color=False)
    return lines


def _reserved(ranges: Sequence[tuple[int, int]]) -> str:
    count = sum(high - low + 1 for low, high in ranges)
    return f", {count:,} of all reserved" if count else ""


def as_json(
    chosen: Sequence[PortsFinding], served: Sequence[TimeWaitFinding],
    totals: Sequence[TimeWaitTotal], census: Census,
) -> Iterator[str]:  # fmt: skip
    """Return a line per destination, per service, per namespace."""
    names = form.netns_names(census)
    for port in chosen:
        yield form.json_line("local_ports", _port_json(port, names))
    for service in served:
        yield form.json_line("time_wait", _service_json(service, names))
    for total in totals:
        yield form.json_line("time_wait_total", _total_json(total, names, census))


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
        "in_use": f.in_use,
        "time_wait": f.time_wait,
        "fin_wait2": f.fin_wait2,
        "share": f.share,
        "remaining": list(f.remaining),
        "entered_per_s": f.entered_per_s,
        "advice": f.advice,
    }


def _total_json(f: TimeWaitTotal, names: dict[int, str], census: Census) -> dict[str, Any]:
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
        "left_out": dict(census.truncated),
    }
