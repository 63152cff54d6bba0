# SPDX-License-Identifier: Apache-2.0
"""`fourwave census`: how many sockets are in which state, where, and whose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tracer.detectors.finding import unit_of
from tracer.detectors.socket_states import MINI
from tracer.outputs import findings as form
from tracer.outputs import table
from tracer.outputs.table import Column
from tracer.outputs.text import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeVar

    from tracer.census import Census
    from tracer.detectors.socket_states import (
        CgroupStates,
        NetnsStates,
        SocketStates,
        StateCounts,
    )

    Part = TypeVar("Part", NetnsStates, CgroupStates)

SORTS: Final[dict[str, Callable[[StateCounts], int]]] = {
    "sockets": lambda counts: -counts.sockets,
    "established": lambda counts: -counts.states["established"],
    "close_wait": lambda counts: -counts.states["close_wait"],
    "time_wait": lambda counts: -counts.states["time_wait"],
}
SHOWN: Final = ("established", "close_wait", "time_wait", "listen")
SHOWN_WIDE: Final = (*SHOWN, "syn_sent", "fin_wait1", "fin_wait2", "last_ack")
SHORT: Final = {"established": "ESTAB"}
NOBODYS: Final = "(none)"


def as_lines(
    states: SocketStates, census: Census, width: int, sort: str, limit: int, *, color: bool
) -> list[str]:
    """Return what there is by state, then by namespace and by cgroup."""
    names = form.netns_names(census)
    spaces = [space for space in states.namespaces if space.counts.sockets]
    shown = [
        ("NETNS", [(names[s.netns], s.counts) for s in _first(spaces, sort, limit)], len(spaces)),
        (
            "UNIT OR CGROUP",
            [(_cgroup(group), group.counts) for group in _first(states.cgroups, sort, limit)],
            len(states.cgroups),
        ),
    ]
    lines = _states(states, width, color=color)
    for title, parts, there in shown:
        lines += ["", *_parts(title, parts, width, color=color)] if parts else []
        lines += [f"({there - limit:,} more)"] if there > limit else []
    return [*lines, "", *form.wrapped(_sum(states), width), *form.accounts(census)]


def _states(states: SocketStates, width: int, *, color: bool) -> list[str]:
    columns = [Column("STATE"), *(Column(t, right=True) for t in ("SOCKETS", "IN", "OUT"))]
    total = states.total
    rows = [
        [
            _word(label),
            f"{count:,}",
            f"{total.inbound[label]:,}",
            f"{count - total.inbound[label]:,}",
        ]
        for label, count in total.states.items()
        if count
    ]
    return table.lines(columns, rows, width, color=color) if rows else ["There is no TCP socket."]


def _parts(
    title: str, parts: Sequence[tuple[str, StateCounts]], width: int, *, color: bool
) -> list[str]:
    shown = SHOWN_WIDE if width >= form.WIDE else SHOWN
    titles = ["SOCKETS", *(SHORT.get(label, label.upper()) for label in shown), "OTHER"]
    columns = [Column(title, least=14), *(Column(one, right=True) for one in titles)]
    rows = [[name, *_cells(counts, shown)] for name, counts in parts]
    return table.lines(columns, rows, width, color=color)


def _cells(counts: StateCounts, shown: Sequence[str]) -> list[str]:
    numbers = [counts.states[label] for label in shown]
    return [f"{n:,}" for n in (counts.sockets, *numbers, counts.sockets - sum(numbers))]


def _first(parts: Sequence[Part], sort: str, limit: int) -> list[Part]:
    return sorted(parts, key=lambda part: SORTS[sort](part.counts))[:limit]


def _cgroup(part: CgroupStates) -> str:
    if not part.cgroup_id:
        return NOBODYS
    return unit_of(part.path) or part.path or f"gone ({part.cgroup_id})"


def _word(label: str) -> str:
    return "FIN_WAIT2 (mini)" if label == MINI else label.upper()


def _sum(states: SocketStates) -> str:
    words = f"{plural(states.total.sockets, 'socket')} in "
    words += f"{plural(len(states.namespaces), 'network namespace')}."
    empty = sum(not space.counts.sockets for space in states.namespaces)
    words += f" {empty:,} of them {'has' if empty == 1 else 'have'} none." if empty else ""
    if states.orphans is None:
        return words
    limit = "" if states.max_orphans is None else f" of at most {states.max_orphans:,}"
    return f"{words} {plural(states.orphans, 'orphan')}{limit} on this host."


def as_json(states: SocketStates, census: Census, sort: str, limit: int) -> Iterator[str]:
    """Return a line per namespace, one per cgroup, then one of the whole."""
    names = form.netns_names(census)
    for space in _first(states.namespaces, sort, limit):
        at = {"netns": space.netns, "netns_name": names.get(space.netns), **_json(space.counts)}
        at |= {"sockstat_inuse": space.sockstat_inuse, "sockstat_tw": space.sockstat_tw}
        yield form.json_line("netns_states", at)
    for group in _first(states.cgroups, sort, limit):
        about = {"cgroup_id": group.cgroup_id, "cgroup": group.path, "unit": unit_of(group.path)}
        yield form.json_line("cgroup_states", {**about, **_json(group.counts)})
    yield form.json_line(
        "states_total",
        {
            **_json(states.total),
            "namespaces": len(states.namespaces),
            "cgroups": len(states.cgroups),
            "orphans": states.orphans,
            "max_orphans": states.max_orphans,
            "mono_ns": census.mono_ns,
            "took_ns": census.took_ns,
            "mechanism": census.mechanism,
            "left_out": dict(census.truncated),
        },
    )


def _json(counts: StateCounts) -> dict[str, Any]:
    return {
        "sockets": counts.sockets,
        "states": dict(counts.states),
        "inbound": dict(counts.inbound),
    }
