# SPDX-License-Identifier: Apache-2.0
"""Accept queues filled on the running kernel until they overflow."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernel.leaking import Service
from tests.kernel.looks import census, until
from tests.truth.netns import ip, namespace
from tracer.detectors import listen_verdict
from tracer.detectors.listen_overflow import ListenOverflow
from tracer.detectors.listen_verdict import ListenVerdict
from tracer.detectors.socket_states import socket_states
from tracer.kernel.census import CensusSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.truth.netns import Namespace, Net
    from tracer.detectors.listen_overflow import ListenerFinding

pytestmark = pytest.mark.kernel

BACKLOG = 4
MORE = 3
ORPHANS = 20
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


def test_limit_is_of_the_last_listen(census_source: CensusSource, ns: Namespace) -> None:
    """Called again with another backlog it has another limit; somaxconn is asked only then."""
    detector = ListenOverflow()
    with ns.socket() as server:
        server.bind(("127.0.0.1", 0))
        for backlog in (5, 9):
            server.listen(backlog)
            queue = found(detector, census_source, ns).queue
            assert (queue.limit, queue.limit_from) == (backlog, "listen")
        ns.sysctl("core/somaxconn", "3")
        finding = found(detector, census_source, ns)
        assert (finding.queue.limit, finding.queue.limit_from) == (9, None)
        server.listen(9)
        queue = found(detector, census_source, ns).queue
        assert (queue.limit, queue.limit_from) == (3, "somaxconn")


def test_sockets_of_one_port_are_told_apart(census_source: CensusSource, ns: Namespace) -> None:
    """With SO_REUSEPORT each has a queue of its own: one is full, the other is not."""
    with contextlib.ExitStack() as stack:
        servers: list[socket.socket] = []
        for _ in range(2):
            server = stack.enter_context(ns.socket())
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            server.bind(("127.0.0.1", 0 if not servers else servers[0].getsockname()[1]))
            server.listen(BACKLOG)
            servers.append(server)
        stack.enter_context(knocking(ns, servers[0].getsockname()[1], 2 * (BACKLOG + 1)))
        report = until(
            lambda: ListenOverflow().look(census(census_source, ns.inum)),
            lambda report: sum(f.queue.accept_queue for f in report.findings) > BACKLOG,
        )
        queues = [finding.queue.accept_queue for finding in report.findings]
        assert report.listeners == len(queues) == 2
        waiting = [_accept_all(server) for server in servers]
        assert sorted(queues) == sorted(waiting)


def _accept_all(server: socket.socket) -> int:
    server.setblocking(False)
    for count in itertools.count():
        try:
            server.accept()[0].close()
        except BlockingIOError:
            return count
    raise AssertionError


@pytest.mark.parametrize("syncookies", [0, 1])
def test_handshakes_nobody_completes(
    syncookies: int, census_source: CensusSource, veth_net: Net
) -> None:
    """A flood of SYNs fills the other queue: nothing overflows, and accept() is not to blame."""
    server_ns, client_ns = veth_net.server.ns, veth_net.client.ns
    server_ns.sysctl("ipv4/tcp_syncookies", str(syncookies))
    neighbour = (veth_net.client.address[4], "lladdr", "02:00:00:00:00:99", "dev", "veth0")
    ip("-n", server_ns.name, "neigh", "replace", *neighbour, "nud", "permanent")
    detector = ListenOverflow()
    with contextlib.ExitStack() as stack:
        stack.callback(ip, "-n", server_ns.name, "neigh", "del", *neighbour)
        server = stack.enter_context(server_ns.socket())
        server.bind((veth_net.server.address[4], 0))
        server.listen(BACKLOG)
        found(detector, census_source, server_ns)
        for _ in range(2 * BACKLOG):
            client = stack.enter_context(client_ns.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        finding = until(
            lambda: found(detector, census_source, server_ns),
            lambda f: f.queue.syn_queue + f.queue.drops >= (BACKLOG if syncookies else 2 * BACKLOG),
        )
    assert finding.queue.syn_queue in (
        BACKLOG,
        BACKLOG + 1,
    )  # kernels differ in whether one more fits
    assert finding.queue.accept_queue == 0
    assert "tcp_syncookies" in finding.advice
    if syncookies:
        assert (finding.verdict, finding.queue.drops) == (ListenVerdict.SYN_QUEUE_FULL, 0)
    else:
        assert finding.verdict == ListenVerdict.DROPPING
        assert finding.queue.drops_since is not None
        assert finding.queue.drops_since >= 2 * BACKLOG - finding.queue.syn_queue
        assert finding.queue.overflows == 0


def test_orphans_are_counted_with_their_limit(census_source: CensusSource, ns: Namespace) -> None:
    """Closed with data nobody takes: no process has them any more, and the kernel goes on."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ns.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(ORPHANS)
        for _ in range(ORPHANS):
            with ns.socket() as client:
                client.connect(server.getsockname())
                stack.enter_context(server.accept()[0])
                client.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        client.send(bytes(65_536))
        taken = census(census_source, ns.inum)
        (space,) = ListenOverflow().look(taken).namespaces
    assert socket_states(taken).total.states["fin_wait1"] == ORPHANS
    assert space.orphans is not None
    assert space.orphans >= ORPHANS  # the whole host's
    assert space.max_orphans == int(Path("/proc/sys/net/ipv4/tcp_max_orphans").read_text())


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
