# SPDX-License-Identifier: Apache-2.0
"""Local ports used up on the running kernel, until connect() itself says so."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.looks import census, until
from tests.truth.netns import namespace
from tracer.detectors.local_ports import LocalPorts, PortVerdict
from tracer.detectors.time_wait import TimeWait

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.truth.netns import Namespace
    from tracer.detectors.local_ports import PortsFinding
    from tracer.kernel.census import CensusSource

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
LOW, HIGH, RESERVED = 40_000, 40_099, 10
CAPACITY = HIGH - LOW + 1 - RESERVED


@pytest.fixture
def ns() -> Iterator[Namespace]:
    """A namespace with a hundred local ports, ten of them reserved, and no reuse."""
    with namespace("ports") as made:
        made.sysctl("ipv4/ip_local_port_range", f"{LOW} {HIGH}")
        made.sysctl("ipv4/ip_local_reserved_ports", f"{LOW}-{LOW + RESERVED - 1}")
        made.sysctl("ipv4/tcp_tw_reuse", "0")
        yield made


@pytest.fixture
def server(ns: Namespace) -> Iterator[socket.socket]:
    """A listener beside the range."""
    with ns.socket() as made:
        made.bind(("127.0.0.1", 30_000))
        made.listen(256)
        yield made


def close_first(ns: Namespace, server: socket.socket, count: int) -> None:
    """Connect and close before the server does: the TIME_WAIT is ours, and so is its port."""
    for _ in range(count):
        client = ns.socket()
        client.connect(server.getsockname())
        conn, _ = server.accept()
        client.close()
        assert conn.recv(1) == b""
        conn.close()


def found(source: CensusSource, ns: Namespace) -> PortsFinding:
    """Look once; there is one destination."""
    (finding,) = LocalPorts().look(census(source, ns.inum))
    return finding


def test_forecast_of_exhaustion(
    census_source: CensusSource, ns: Namespace, server: socket.socket
) -> None:
    """Fifty TIME_WAITs within five seconds are ten a second: ninety ports are not enough."""
    close_first(ns, server, 50)
    finding = found(census_source, ns)
    assert finding.verdict == PortVerdict.RUNS_OUT
    assert (finding.in_use, finding.time_wait) == (0, 50)
    assert (finding.capacity, finding.available) == (CAPACITY, CAPACITY - 50)
    assert finding.entered_per_s == 10
    assert finding.exhausted_in_s == pytest.approx(4, abs=0.5)
    assert (finding.laddr, finding.raddr, finding.rport) == ("127.0.0.1", "127.0.0.1", 30_000)
    assert sum(finding.remaining) == 50


def test_exhausted_is_when_connect_fails(
    census_source: CensusSource, ns: Namespace, server: socket.socket
) -> None:
    """As many connections fit as were said to be left; then connect() has no address."""
    close_first(ns, server, 20)
    left = found(census_source, ns).available
    with contextlib.ExitStack() as stack:
        for _ in range(left or 0):
            stack.enter_context(client := ns.socket())
            client.connect(server.getsockname())
        with pytest.raises(OSError) as refusal, ns.socket() as client:  # noqa: PT011
            client.connect(server.getsockname())
        assert refusal.value.errno == errno.EADDRNOTAVAIL
        finding = found(census_source, ns)
    assert finding.verdict == PortVerdict.EXHAUSTED
    assert (finding.in_use, finding.time_wait) == (CAPACITY - 20, 20)
    assert finding.available == 0


def test_a_listener_in_the_range_takes_a_port_from_all(
    census_source: CensusSource, ns: Namespace, server: socket.socket
) -> None:
    """However it is bound: one less is left, and connect() fails when none is."""
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(ns.socket())
        other.bind(("127.0.0.2", HIGH))
        other.listen()
        for _ in range(CAPACITY - 1):
            stack.enter_context(client := ns.socket())
            client.connect(server.getsockname())
        with pytest.raises(OSError) as refusal, ns.socket() as client:  # noqa: PT011
            client.connect(server.getsockname())
        assert refusal.value.errno == errno.EADDRNOTAVAIL
        finding = found(census_source, ns)
    assert (finding.verdict, finding.available) == (PortVerdict.EXHAUSTED, 0)


def test_reuse_is_taken_into_account(
    census_source: CensusSource, ns: Namespace, server: socket.socket
) -> None:
    """With tcp_tw_reuse for loopback the same TIME_WAITs are no danger: connect() takes them."""
    ns.sysctl("ipv4/tcp_tw_reuse", "2")
    close_first(ns, server, CAPACITY)
    finding = until(lambda: found(census_source, ns), lambda f: f.time_wait == CAPACITY)
    assert finding.verdict == PortVerdict.FINE
    assert finding.available == 0
    until(lambda: _connects(ns, server), bool)


def _connects(ns: Namespace, server: socket.socket) -> bool:
    with ns.socket() as client:
        return client.connect_ex(server.getsockname()) == 0


def test_who_closes_first_pays(
    census_source: CensusSource, ns: Namespace, server: socket.socket
) -> None:
    """Seven of the service, five of ours: each where it belongs."""
    for number in range(7):
        client = ns.socket()
        # Beside the range: a SYN from the port of a TIME_WAIT takes its place.
        client.bind(("127.0.0.1", 20_000 + number))
        client.connect(server.getsockname())
        server.accept()[0].close()
        assert client.recv(1) == b""
        client.close()
    close_first(ns, server, 5)

    def owned() -> dict[tuple[int | None, int | None], int]:
        findings, _ = TimeWait().look(census(census_source, ns.inum))
        return {(finding.lport, finding.rport): finding.time_wait for finding in findings}

    until(owned, lambda seen: seen == {(30_000, None): 7, (None, 30_000): 5})


@contextlib.contextmanager
def watching(ns: Namespace) -> Iterator[subprocess.Popen[str]]:
    """A running view of ports, which has looked once; it ends with 0."""
    command = [sys.executable, "-m", "tracer", "ports", "--json", "--watch", "0.2"]
    view = subprocess.Popen(
        [*command, "--netns", ns.name], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert view.stdout is not None
    with view.stdout:
        assert view.stdout.readline()  # it traces before it looks
        yield view
        view.send_signal(signal.SIGINT)
    assert view.wait(10) == 0


def test_who_opened_what_is_in_time_wait(ns: Namespace, server: socket.socket) -> None:
    """Nobody holds these any more: the records of their closes name the process."""
    with watching(ns) as view:
        close_first(ns, server, 5)

        def openers() -> list[dict[str, object]]:
            assert view.stdout is not None
            return list(json.loads(view.stdout.readline()).get("openers", ()))

        (opener,) = until(openers, lambda found: bool(found) and found[0]["count"] == 5)
    assert opener["pid"] == os.getpid()


@pytest.mark.parametrize(
    ("family", "addr", "told"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::ffff:127.0.0.1", "127.0.0.1"),
    ],
)
def test_failing_connect_is_counted(family: int, addr: str, told: str, ns: Namespace) -> None:
    """The command line tells who found no port, how often, and for where."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ns.socket(socket.AF_INET6))
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind(("::", 30_000))
        server.listen(256)
        view = stack.enter_context(watching(ns))
        for _ in range(CAPACITY):
            stack.enter_context(client := ns.socket(family))
            client.connect((addr, 30_000))
        for _ in range(3):
            with ns.socket(family) as client:
                assert client.connect_ex((addr, 30_000)) == errno.EADDRNOTAVAIL
        assert view.stdout is not None
        lines = view.stdout
        exhausted = until(lambda: json.loads(lines.readline()), _is_exhausted)
        failure = until(lambda: json.loads(lines.readline()), _is_third_failure)
    assert (exhausted["raddr"], exhausted["in_use"]) == (told, CAPACITY)
    assert [user["pid"] for user in exhausted["users"]] == [os.getpid()]
    assert (failure["raddr"], failure["rport"]) == (told, 30_000)
    assert (failure["netns"], failure["pid"]) == (ns.inum, os.getpid())


def _is_exhausted(told: dict[str, Any]) -> bool:
    return bool(told.get("verdict") == "exhausted")


def _is_third_failure(told: dict[str, object]) -> bool:
    return told["type"] == "port_failure" and told["count"] == 3
