# SPDX-License-Identifier: Apache-2.0
"""Accept queues filled on the running kernel until they overflow."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.kernel.leaking import Service
from tests.kernel.looks import census, until
from tests.truth.netns import namespace
from tracer.detectors import listen_verdict
from tracer.detectors.listen_overflow import ListenOverflow
from tracer.detectors.listen_verdict import ListenVerdict
from tracer.kernel.census import CensusSource

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from tests.truth.netns import Namespace
    from tracer.detectors.listen_overflow import ListenerFinding

pytestmark = pytest.mark.kernel

BACKLOG = 4
MORE = 3
STUCK_S = 0.5
JIFFY_S = 0.01


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


@pytest.mark.parametrize("mechanism", ["iterator", "sock_diag"])
def test_stopped_server(mechanism: str, ns: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three wait at a process that was stopped, far from the limit; it goes on, and all is fine."""
    monkeypatch.setattr(listen_verdict, "STUCK_S", STUCK_S)
    if mechanism == "sock_diag":
        monkeypatch.setenv("FOURWAVE_CENSUS", "sock_diag")
    with (
        CensusSource(CensusSource.load()) as source,
        Service(ns, "forgets") as service,
    ):
        detector = ListenOverflow()
        assert found(detector, source, ns).queue.oldest_wait_s is None
        os.kill(service.pid, signal.SIGSTOP)
        os.waitpid(service.pid, os.WUNTRACED)  # all its threads have stopped
        began = time.monotonic()
        with knocking(ns, service.port, MORE):
            finding = until(
                lambda: found(detector, source, ns), lambda f: f.verdict == ListenVerdict.STUCK
            )
            waited_s, past_s = finding.queue.oldest_wait_s, time.monotonic() - began
            os.kill(service.pid, signal.SIGCONT)
            after = until(
                lambda: found(detector, source, ns), lambda f: f.verdict == ListenVerdict.FINE
            )
    assert source.mechanism == mechanism
    assert finding.queue.accept_queue == MORE
    assert waited_s is not None
    assert STUCK_S <= waited_s <= past_s + JIFFY_S
    assert f"{MORE} connections wait for accept(), the first for" in finding.why
    assert after.queue.oldest_wait_s is None


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
