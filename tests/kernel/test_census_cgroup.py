# SPDX-License-Identifier: Apache-2.0
"""Which unit's sockets a census counts, and whose a leak is said to be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.kernel.cgroup import enter, fresh
from tests.kernel.leaking import Service
from tests.kernel.looks import census, until
from tests.truth.netns import namespace
from tracer.detectors.close_wait_leak import CloseWaitLeak
from tracer.detectors.listen_overflow import ListenOverflow
from tracer.detectors.socket_states import socket_states

if TYPE_CHECKING:
    from tracer.census import Census
    from tracer.kernel.census import CensusSource

pytestmark = pytest.mark.kernel

COUNT: Final = 7


def test_sockets_are_of_the_unit_that_listens(census_source: CensusSource) -> None:
    """What it accepted is its own; the other ends are of whoever connected."""
    with namespace("cgroup") as ns, fresh("web.service", "clients.scope") as (web, clients):
        enter(web)
        with Service(ns, "forgets") as service:
            enter(clients)
            for _ in range(COUNT):
                with ns.socket() as client:
                    client.connect(("127.0.0.1", service.port))
            with ns.socket() as client:
                client.connect(("127.0.0.1", service.port))
                taken = until(lambda: census(census_source, ns.inum), _are_all_read)
                (leak,) = CloseWaitLeak(0).look(taken).findings
                (listener,) = ListenOverflow().look(taken).findings
    counts = {group.path: group.counts.states for group in socket_states(taken).cgroups}
    assert counts[f"/{web.name}"]["close_wait"] == COUNT
    assert counts[f"/{web.name}"]["established"] == counts[f"/{web.name}"]["listen"] == 1
    assert counts[f"/{clients.name}"]["established"] == 1
    assert sum(counts[f"/{clients.name}"].values()) == 1
    assert leak.unit == listener.unit == web.name


def _are_all_read(taken: Census) -> bool:
    read = [finding.evidence.eof_read for finding in CloseWaitLeak(0).look(taken).findings]
    queued = taken.sockets["accept_queue"].sum()
    return read == [COUNT] and not queued
