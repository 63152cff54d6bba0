# SPDX-License-Identifier: Apache-2.0
"""Accept queues filled on the running kernel until they overflow."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.kernel.leaking import Service
from tests.kernel.looks import census, until
from tests.truth.netns import namespace
from tracer.detectors.listen_overflow import ListenOverflow
from tracer.detectors.listen_verdict import ListenVerdict

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from tests.truth.netns import Namespace
    from tracer.detectors.listen_overflow import ListenerFinding
    from tracer.kernel.census import CensusSource

pytestmark = pytest.mark.kernel

BACKLOG = 4
MORE = 3


@pytest.fixture
def ns() -> Iterator[Namespace]:
    """A namespace of its own."""
    with namespace("listen") as made:
        yield made


@contextlib.contextmanager
def knocking(ns: Namespace, port: int, count: int) -> Iterator[list[socket.socket]]:
    """Begin so many connections, and wait for none."""
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(count):
            client = stack.enter_context(ns.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
            clients.append(client)
        yield clients


def found(detector: ListenOverflow, source: CensusSource, ns: Namespace) -> ListenerFinding:
    """Look once; there is one listener."""
    (finding,) = detector.look(census(source, ns.inum)).findings
    return finding


def test_overflow(census_source: CensusSource, ns: Namespace) -> None:
    """One more than the limit fits; what comes then is dropped, and counted as an overflow."""
    detector = ListenOverflow()
    with Service(ns, "never_accepts", BACKLOG) as service:
        before = found(detector, census_source, ns)
        assert before.verdict == ListenVerdict.FINE
        with knocking(ns, service.port, BACKLOG + 1 + MORE):
            finding = until(
                lambda: found(detector, census_source, ns), lambda f: f.queue.drops >= MORE
            )
    assert finding.verdict == ListenVerdict.FULL
    assert [holder.pid for holder in finding.holders] == [service.pid]
    assert finding.lport == service.port
    queue = finding.queue
    assert (queue.accept_queue, queue.limit, queue.limit_from) == (BACKLOG + 1, BACKLOG, "listen")
    assert queue.drops_since == queue.drops
    assert queue.overflows == queue.drops


def test_limit_of_the_namespace(census_source: CensusSource, ns: Namespace) -> None:
    """Somaxconn cuts what listen() asks for."""
    ns.sysctl("core/somaxconn", "3")
    with Service(ns, "never_accepts", 1000):
        queue = found(ListenOverflow(), census_source, ns).queue
    assert (queue.limit, queue.limit_from, queue.somaxconn) == (3, "somaxconn", 3)


def test_peak_is_kept(census_source: CensusSource, ns: Namespace) -> None:
    """The queue is empty again, the peak is not forgotten."""
    detector = ListenOverflow()
    with ns.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        with knocking(ns, server.getsockname()[1], 40):
            until(lambda: found(detector, census_source, ns).queue.accept_queue, lambda n: n == 40)
            for _ in range(40):
                server.accept()[0].close()
            finding = found(detector, census_source, ns)
    assert (finding.queue.accept_queue, finding.queue.accept_queue_peak) == (0, 40)
    assert finding.verdict == ListenVerdict.FILLING


def test_drops_after_the_first_look_are_told_apart(
    census_source: CensusSource, ns: Namespace
) -> None:
    """What was dropped long ago is not what is dropped now."""
    with Service(ns, "never_accepts", BACKLOG) as service:
        with knocking(ns, service.port, BACKLOG + 1 + MORE):
            watching = ListenOverflow()
            first = until(lambda: found(watching, census_source, ns), lambda f: bool(f.queue.drops))
            assert first.queue.drops > 0
        detector = ListenOverflow()
        assert found(detector, census_source, ns).queue.drops_since is None
        later = found(detector, census_source, ns)
    assert later.queue.drops_since == 0
    assert later.queue.drops_per_minute == 0
