# SPDX-License-Identifier: Apache-2.0
"""`fourwave leaks`: groups of sockets in CLOSE_WAIT, and what each is judged to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tracer.detectors.finding import Severity
from tracer.detectors.rows import in_state
from tracer.outputs import findings as form
from tracer.outputs import origins as stacks
from tracer.outputs import table
from tracer.outputs.live import volume
from tracer.outputs.table import Column
from tracer.outputs.text import endpoint, plural
from tracer.tcp import TcpState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tracer.census import Census
    from tracer.detectors.close_wait_leak import CloseWaitFinding, CloseWaitReport
    from tracer.detectors.close_wait_sockets import CloseWaitSocket
    from tracer.origins import Origins

    Cell = Callable[[CloseWaitFinding, dict[int, str]], str]

SORTS: Final[dict[str, Callable[[CloseWaitFinding], float]]] = {
    "severity": lambda f: -f.severity,
    "count": lambda f: -f.evidence.count,
    "growth": lambda f: -(f.evidence.per_minute or 0),
    "age": lambda f: -f.evidence.oldest_ms,
    "unread": lambda f: -f.evidence.unread_bytes,
}
WORDS: Final = {"accept_queue": "not accepted", "unsettled": "leak or pool"}
MS_PER_S: Final = 1_000
SHARE_SHOWN: Final = 0.01
SOON_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class Leaks:
    """What there is to show; `origins`: of each that is chosen, None where nobody asked."""

    report: CloseWaitReport
    chosen: Sequence[CloseWaitFinding]
    origins: Sequence[Origins | None]
    stacks_left_out: Mapping[str, int]


def as_lines(found: Leaks, census: Census, width: int, *, color: bool) -> list[str]:
    """Return the table of the chosen findings with why and what to do, and the sum of it."""
    report, chosen = found.report, found.chosen
    accounts = form.accounts(census, found.stacks_left_out)
    if not chosen:
        return [*_sum(report, census), *accounts]
    names, several = form.netns_names(census), len({f.place.netns for f in report.findings}) > 1
    columns = _columns(several=several, wide=width >= form.WIDE)
    rows = [[get(f, names) for _, get in columns] for f in chosen]
    shown = table.lines([column for column, _ in columns], rows, width, color=color)
    wide = width >= form.WIDE
    below = [
        [
            *([] if wide else _where(f, names, several=several)),
            *form.details(_why(f), _advice(f), width, color=color),
            *_sockets(f, width),
            *(stacks.as_lines(origins, width) if origins else []),
        ]
        for f, origins in zip(chosen, found.origins, strict=True)
    ]
    inks = [form.INKS[f.severity] if color else "" for f in chosen]
    left = len(report.findings) - len(chosen)
    more = [f"({plural(left, 'group')} not shown)"] if left else []
    return [*form.interleave(shown, below, inks), *more, "", *_sum(report, census), *accounts]


def _columns(*, several: bool, wide: bool) -> list[tuple[Column, Cell]]:
    columns: list[tuple[Column, Cell]] = [
        (Column("VERDICT"), lambda f, _: verdict(f)),
        (Column("COUNT", right=True), lambda f, _: f"{f.evidence.count:,}"),
        (Column("/MIN", right=True), lambda f, _: form.rate(f.evidence.per_minute)),
        (Column("OLDEST", right=True), lambda f, _: _oldest(f)),
        (Column("HELD BY", least=14), lambda f, _: form.who(f.holders, f.holder_count)),
        (Column("CONNECTION", least=14), lambda f, _: connection(f)),
    ]
    if wide:
        unread = (Column("UNREAD", right=True), lambda f, _: volume(f.evidence.unread_bytes))
        columns[4:4] = [unread]
        columns.append((Column("UNIT", least=8), lambda f, _: f.unit or "-"))
        if several:
            columns.append((Column("NETNS", least=6), _netns))
    return columns


def verdict(finding: CloseWaitFinding) -> str:
    """Return the verdict in words; with a question mark until it is settled."""
    label = finding.verdict.label
    word = WORDS.get(label, label.replace("_", " "))
    return word if finding.settled else f"{word}?"


def connection(finding: CloseWaitFinding) -> str:
    """Return the service and who uses it, or the destination."""
    place = finding.place
    if place.lport is None:
        return f"to {endpoint(place.raddr or '', place.rport or 0)}"
    if place.peer_count == 1:
        return f":{place.lport} from {place.peers[0].addr}"
    return f":{place.lport} from {plural(place.peer_count, 'peer')}"


def _netns(finding: CloseWaitFinding, names: dict[int, str]) -> str:
    return names.get(finding.place.netns, str(finding.place.netns))


def _oldest(finding: CloseWaitFinding) -> str:
    return form.age(finding.evidence.oldest_ms, finding.evidence.oldest_at_most_ms)


def _why(finding: CloseWaitFinding) -> str:
    return " ".join([finding.why, *_room(finding)])


def _room(finding: CloseWaitFinding) -> list[str]:
    share, reached_s = finding.nofile_share, finding.nofile_reached_s
    if share is None or finding.severity == Severity.OK:
        return []
    if share < SHARE_SHOWN and (reached_s or SOON_S) >= SOON_S:
        return []
    until = f"; none is left in {form.seconds(reached_s)}" if reached_s is not None else ""
    part = f"{100 * share:.0f} %" if share >= SHARE_SHOWN else f"{finding.evidence.count:,}"
    return [f"They take {part} of {finding.nofile_soft:,} descriptors{until}."]


# What has no column of its own in a narrow table.
def _where(finding: CloseWaitFinding, names: dict[int, str], *, several: bool) -> list[str]:
    words = [f"unit {finding.unit}"] if finding.unit else []
    words += [f"netns {_netns(finding, names)}"] if several else []
    return [f"{form.INDENT}{', '.join(words)}"] if words else []


def _sockets(finding: CloseWaitFinding, width: int) -> list[str]:
    if not finding.sockets:
        return []
    rows = [
        [
            "-" if s.fd is None else str(s.fd),
            form.age(s.age_ms, s.age_at_most_ms),
            volume(s.unread_bytes),
            "read" if s.eof_read else "unread",
            endpoint(s.laddr, s.lport),
            endpoint(s.raddr, s.rport),
        ]
        for s in finding.sockets
    ]
    lines = table.lines(SOCKET_COLUMNS, rows, width - len(form.INDENT), color=False)
    return [f"{form.INDENT}{line}" for line in lines]


SOCKET_COLUMNS: Final = (
    Column("FD", right=True),
    Column("AGE", right=True),
    Column("UNREAD", right=True),
    Column("END"),
    Column("LOCAL", least=12),
    Column("REMOTE", least=12),
)


def _advice(finding: CloseWaitFinding) -> str:
    return finding.advice if finding.severity > Severity.OK else ""


def _sum(report: CloseWaitReport, census: Census) -> list[str]:
    limit = form.seconds(report.older_ms / MS_PER_S)
    if not report.sockets:
        there = int(in_state(census.states, TcpState.CLOSE_WAIT)["count"].sum())
        if there:
            return [f"None of {plural(there, 'socket')} in CLOSE_WAIT is what was asked for."]
        return ["No socket is in CLOSE_WAIT."]
    older = report.sockets - report.younger
    if not older:
        return [
            f"No CLOSE_WAIT older than {limit}: {plural(report.sockets, 'socket')}, all younger."
        ]
    lines = [f"{older:,} of {plural(report.sockets, 'socket')} in CLOSE_WAIT older than {limit}."]
    if not all(finding.settled for finding in report.findings):
        lines.append("?: judged by the ages of the sockets; --over 60 watches for a minute first.")
    if report.groups_left_out:
        lines.append(f"LEFT OUT {plural(report.groups_left_out, 'group')}, the smallest.")
    return lines


def as_json(found: Leaks, census: Census) -> Iterator[str]:
    """Return a line per finding, then one of the whole."""
    report, names = found.report, form.netns_names(census)
    for finding, origins in zip(found.chosen, found.origins, strict=True):
        at = _finding(finding, names) | {"origins": stacks.as_json(origins)}
        yield form.json_line("close_wait_group", at)
    yield form.json_line(
        "close_wait_total",
        {
            "mono_ns": census.mono_ns,
            "took_ns": census.took_ns,
            "mechanism": census.mechanism,
            "sockets": report.sockets,
            "younger": report.younger,
            "older_s": report.older_ms / MS_PER_S,
            "groups": len(report.findings),
            "groups_left_out": report.groups_left_out,
            "left_out": form.left_out(census, found.stacks_left_out),
        },
    )


def _finding(finding: CloseWaitFinding, names: dict[int, str]) -> dict[str, Any]:
    evidence, place = finding.evidence, finding.place
    return {
        "verdict": finding.verdict.label,
        "settled": finding.settled,
        "severity": finding.severity.label,
        "why": finding.why,
        "advice": finding.advice,
        "count": evidence.count,
        "per_minute": evidence.per_minute,
        "oldest_s": evidence.oldest_ms / MS_PER_S,
        "oldest_at_most_s": (
            None if evidence.oldest_at_most_ms is None else evidence.oldest_at_most_ms / MS_PER_S
        ),
        "watched_s": evidence.trend.span_s if evidence.trend else 0.0,
        "entered": evidence.trend.entered if evidence.trend else None,
        "left": evidence.trend.left if evidence.trend else None,
        "unread_bytes": evidence.unread_bytes,
        "eof_read": evidence.eof_read,
        "eof_pending": evidence.eof_pending,
        "data_pending": evidence.data_pending,
        "holders": form.holders_json(finding.holders),
        "holder_count": finding.holder_count,
        "unit": finding.unit,
        "netns": place.netns,
        "netns_name": names.get(place.netns),
        "lport": place.lport,
        "raddr": place.raddr,
        "rport": place.rport,
        "peers": [{"raddr": peer.addr, "count": peer.count} for peer in place.peers],
        "peer_count": place.peer_count,
        "sockets": [_socket(socket) for socket in finding.sockets],
        "nofile_soft": finding.nofile_soft,
        "open_fds": finding.open_fds,
        "nofile_share": finding.nofile_share,
        "nofile_reached_s": finding.nofile_reached_s,
    }


def _socket(socket: CloseWaitSocket) -> dict[str, Any]:
    at_most_ms = socket.age_at_most_ms
    return {
        "cookie": socket.cookie,
        "ino": socket.ino,
        "fd": socket.fd,
        "laddr": socket.laddr,
        "lport": socket.lport,
        "raddr": socket.raddr,
        "rport": socket.rport,
        "accepted": socket.accepted,
        "age_s": socket.age_ms / MS_PER_S,
        "age_at_most_s": None if at_most_ms is None else at_most_ms / MS_PER_S,
        "unread_bytes": socket.unread_bytes,
        "eof_read": socket.eof_read,
    }
