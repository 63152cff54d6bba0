# SPDX-License-Identifier: Apache-2.0
"""How many sockets are in which state: of all, per network namespace, per cgroup."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from tracer.close_text import cgroup_path
from tracer.tcp import TcpState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tracer.census import Census, Rows

MINI: Final = "fin_wait2_mini"
"""TIME_WAIT's mini-sockets that still wait for the peer's FIN."""
LABELS: Final = (*(state.label for state in TcpState), MINI)


@dataclass(frozen=True, slots=True)
class StateCounts:
    """Sockets by LABELS; all of them are there, 0 where there is none."""

    sockets: int
    states: Mapping[str, int]
    inbound: Mapping[str, int]
    """Of these, on the local port of a service."""


@dataclass(frozen=True, slots=True)
class NetnsStates:
    """One network namespace, and what /proc/net/sockstat said just before; None: not read."""

    netns: int
    counts: StateCounts
    sockstat_inuse: int | None
    sockstat_tw: int | None


@dataclass(frozen=True, slots=True)
class CgroupStates:
    """One cgroup; id 0: sockets that have none, like TIME_WAIT, NEW_SYN_RECV and CLOSE."""

    cgroup_id: int
    path: str | None
    counts: StateCounts


@dataclass(frozen=True, slots=True)
class SocketStates:
    """A census, counted; orphans and their limit are the host's."""

    total: StateCounts
    namespaces: tuple[NetnsStates, ...]
    cgroups: tuple[CgroupStates, ...]
    orphans: int | None
    max_orphans: int | None


def socket_states(census: Census) -> SocketStates:
    """Count a census."""
    facts = next(iter(census.namespaces.values()), None)
    return SocketStates(
        total=_counts(census.states),
        namespaces=tuple(_namespaces(census)),
        cgroups=tuple(_cgroups(census)),
        orphans=facts.sockstat.get("orphan") if facts else None,
        max_orphans=facts.max_orphans if facts else None,
    )


def _namespaces(census: Census) -> Iterator[NetnsStates]:
    for netns, facts in sorted(census.namespaces.items()):
        stat = facts.sockstat
        yield NetnsStates(
            netns=netns,
            counts=_counts(census.states[census.states["netns"] == netns]),
            sockstat_inuse=stat["inuse"] + stat.get("tcp6_inuse", 0) if "inuse" in stat else None,
            sockstat_tw=stat.get("tw"),
        )


def _cgroups(census: Census) -> Iterator[CgroupStates]:
    for number in np.unique(census.states["cgroup_id"]).tolist():
        yield CgroupStates(
            cgroup_id=number,
            path=cgroup_path(census.cgroups.get(number)),
            counts=_counts(census.states[census.states["cgroup_id"] == number]),
        )


def _counts(rows: Rows) -> StateCounts:
    states, inbound = dict.fromkeys(LABELS, 0), dict.fromkeys(LABELS, 0)
    for row in rows:
        label, count = _label(int(row["state"]), int(row["substate"])), int(row["count"])
        states[label] += count
        inbound[label] += count * int(row["inbound"])
    return StateCounts(sum(states.values()), states, inbound)


def _label(state: int, substate: int) -> str:
    return TcpState(state).label if state == substate else MINI
