# SPDX-License-Identifier: Apache-2.0
"""Sockets by state, namespace and cgroup: what is counted where."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.unit import censuses as c
from tracer.census import STATES
from tracer.detectors.socket_states import LABELS, MINI, socket_states
from tracer.tcp import TcpState

ROWS = np.concatenate([
    c.row(STATES, netns=1, cgroup_id=5, state=1, substate=1, count=7, inbound=1),
    c.row(STATES, netns=1, cgroup_id=6, state=1, substate=1, count=2),
    c.row(STATES, netns=2, cgroup_id=5, state=8, substate=8, count=3, inbound=1),
    c.row(STATES, netns=2, state=6, substate=6, count=4),
    c.row(STATES, netns=2, state=6, substate=5, count=9, inbound=1),
])  # fmt: skip
STAT = {"inuse": 4, "tcp6_inuse": 5, "tw": 1, "orphan": 2}
FACTS = replace(c.FACTS, sockstat=STAT, max_orphans=64)


def test_every_state_is_told_and_minis_apart() -> None:
    """All twelve, and mini-sockets without the peer's FIN."""
    total = socket_states(c.census(states=ROWS)).total
    assert tuple(total.states) == LABELS
    assert len(LABELS) == len(TcpState) + 1
    assert total.sockets == 25
    told = {label: (count, total.inbound[label]) for label, count in total.states.items() if count}
    assert told == {
        "established": (9, 7),
        "close_wait": (3, 3),
        "time_wait": (4, 0),
        MINI: (9, 9),
    }


def test_namespaces_and_cgroups_add_up() -> None:
    """Each socket is in one namespace and one cgroup, or in none."""
    states = socket_states(
        c.census(states=ROWS, namespaces={1: FACTS, 2: c.FACTS}, cgroups={5: "/web", 6: None})
    )
    spaces = [(one.netns, one.counts.sockets) for one in states.namespaces]
    assert spaces == [(1, 9), (2, 16)]
    stat = [(one.sockstat_inuse, one.sockstat_tw) for one in states.namespaces]
    assert stat == [(9, 1), (None, None)]
    groups = [(g.cgroup_id, g.path, g.counts.sockets) for g in states.cgroups]
    assert groups == [(0, None, 13), (5, "/web", 10), (6, None, 2)]
    assert (states.orphans, states.max_orphans) == (2, 64)
