# SPDX-License-Identifier: Apache-2.0
"""The census against sockets that were made, and against ss, /proc/net/tcp and sockstat."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.bench import load
from tests.conftest import skip_or_fail
from tests.truth.netns import ip, namespace
from tests.truth.standing import (
    SERVICE_PORT,
    proc_net_tcp,
    sockstat,
    ss,
    ss_summary,
    standing,
)
from tests.truth.wire import wait_until, wired_pair
from tracer.batch import Batch, BatchKind
from tracer.kernel import walk
from tracer.kernel.census import FORCE, CensusSource
from tracer.kernel.destroy import destroy
from tracer.kernel.source import KernelSource
from tracer.recording import RecordingSource, RecordingWriter
from tracer.tcp import TcpState
from tracer.wire_census import decode_census

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.truth.netns import Namespace
    from tests.truth.standing import Standing
    from tracer.census import Census

pytestmark = pytest.mark.kernel

MANY_WAITING = 200_000
MANY = 400  # rows of one kind; the kernel's buffer of an iterator holds 227


@pytest.fixture(scope="module")
def source() -> Iterator[CensusSource]:
    """The census by iterators."""
    with CensusSource(CensusSource.load()) as source:
        if source.mechanism != "iterator":
            skip_or_fail(f"no iterators here: {source.reason}")
        yield source


@pytest.fixture(scope="module")
def second_choice() -> Iterator[CensusSource]:
    """The census by sock_diag, forced."""
    os.environ[FORCE] = "sock_diag"
    try:
        source = CensusSource(CensusSource.load())
    finally:
        del os.environ[FORCE]
    with source:
        yield source


@pytest.fixture
def stood() -> Iterator[Standing]:
    """Sockets in all twelve states, new for each test: some last a minute."""
    with wired_pair("census") as wired, standing(wired) as made:
        yield made


def take(source: CensusSource, *spaces: Namespace, **wishes: Any) -> Census:
    """Return a census of some namespaces."""
    inums = {ns.inum for ns in spaces}
    return decode_census(source.take(inums, **{"owners": True, **wishes}).data)


def counted(census: Census, ns: Namespace) -> Counter[tuple[int, int]]:
    """Count by state and substate."""
    counts: Counter[tuple[int, int]] = Counter()
    for row in census.states[census.states["netns"] == ns.inum]:
        counts[int(row["state"]), int(row["substate"])] += int(row["count"])
    return counts


def as_proc(counts: Counter[tuple[int, int]]) -> Counter[int]:
    """Count as /proc/net/tcp and ss do: mini-sockets by substate, requests as SYN_RECV."""
    table: Counter[int] = Counter()
    for (_, substate), count in counts.items():
        table[3 if substate == 12 else substate] += count
    del table[7]
    return table


def test_all_twelve_states(source: CensusSource, stood: Standing) -> None:
    """Each state on both sides, FIN_WAIT2 mini-sockets apart from those a process holds."""
    census = take(source, stood.near.ns, stood.far.ns)
    assert counted(census, stood.near.ns) == stood.client
    assert counted(census, stood.far.ns) == stood.server
    seen = {state for state, _ in stood.client + stood.server}
    assert seen == {int(state) for state in TcpState}
    assert census.truncated == {}


def test_others_count_the_same(source: CensusSource, stood: Standing) -> None:
    """Ss, /proc/net/tcp and sockstat, by their own definitions."""
    for side in (stood.near, stood.far):
        census = take(source, side.ns)
        counts = counted(census, side.ns)
        assert as_proc(counts) == proc_net_tcp(side.ns) == ss(side.ns)
        stat = sockstat(side.ns)
        assert stat["tw"] == sum(n for (state, _), n in counts.items() if state == 6)
        hashed = sum(n for (state, _), n in counts.items() if state not in (6, 7, 12))
        assert stat["inuse"] == hashed
        assert census.namespaces[side.ns.inum].sockstat["inuse"] == hashed
        summary = ss_summary(side.ns)
        assert summary["timewait"] == stat["tw"]
        assert summary["estab"] == counts[1, 1] + counts[8, 8]
        assert summary["hashed"] == hashed


def test_both_ways_agree(
    source: CensusSource, second_choice: CensusSource, stood: Standing
) -> None:
    """The second choice counts the same, and shows the same sockets."""
    assert (second_choice.mechanism, second_choice.reason) == ("sock_diag", f"{FORCE}=sock_diag")
    sides = (stood.near.ns, stood.far.ns)
    first, second = take(source, *sides), take(second_choice, *sides)
    for ns in sides:
        assert as_proc(counted(first, ns)) == as_proc(counted(second, ns))
    columns = ["netns", "ino", "laddr", "raddr", "lport", "rport", "state", "family", "shutdown"]
    columns += ["unread", "unsent", "unacked", "accept_queue", "accept_queue_limit", "syn_queue"]
    columns += ["uid", "bytes_received", "bytes_acked", "drops", "cookie"]
    for name in columns:
        mine, theirs = (
            np.sort(c.sockets, order=["netns", "lport", "rport", "state"])[name]
            for c in (first, second)
        )
        assert mine.tolist() == theirs.tolist(), name
    keys = ["netns", "inbound", "lport", "rport"]
    for name in ("in_use", "time_wait", "fin_wait2", "in_range", "laddr", "raddr", "family"):
        mine, theirs = (np.sort(c.ports, order=keys)[name] for c in (first, second))
        assert mine.tolist() == theirs.tolist(), name
    assert sorted(first.owners[["ino", "tgid", "fd", "comm"]].tolist()) == sorted(
        second.owners[["ino", "tgid", "fd", "comm"]].tolist()
    )
    first, second = (take(one, *sides, users=True) for one in (source, second_choice))
    columns = ["netns", "tgid", "comm", "rport", "family", "count"]
    assert len(first.users) > 0
    assert sorted(first.users[columns].tolist()) == sorted(second.users[columns].tolist())


def test_open_connections_are_counted_by_process_and_destination(source: CensusSource) -> None:
    """Both processes that share one; what a service accepted is no destination's; no rows."""
    with contextlib.ExitStack() as stack:
        ns = stack.enter_context(namespace("users"))
        listener = stack.enter_context(ns.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        clients = [stack.enter_context(ns.socket()) for _ in range(3)]
        for client in clients:
            client.connect(listener.getsockname())
            stack.enter_context(listener.accept()[0])
        child = stack.enter_context(holding(clients[0]))
        census = take(source, ns, users=True)
        port = listener.getsockname()[1]
        assert set(census.users[["tgid", "rport", "count"]].tolist()) == {
            (os.getpid(), port, 3),
            (child.pid, port, 1),
        }
        assert set(census.sockets["state"].tolist()) == {TcpState.LISTEN}
        assert len(take(source, ns).users) == 0
        child.communicate(b"", timeout=10)


def test_when_close_wait_began_is_known_where_closes_are_followed() -> None:
    """The very moment, whatever is heard later; nothing of one that began before."""
    with contextlib.ExitStack() as stack:
        ns = stack.enter_context(namespace("since"))
        listener = stack.enter_context(ns.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        _half_closed(stack, ns, listener)
        follower = stack.enter_context(
            KernelSource(KernelSource.load(census=CensusSource.options()))
        )
        source = stack.enter_context(CensusSource(follower.loaded))
        if source.mechanism != "iterator":
            skip_or_fail(f"no iterators here: {source.reason}")
        before_ns = time.monotonic_ns()
        _half_closed(stack, ns, listener)
        after_ns = time.monotonic_ns()
        rows = take(source, ns).sockets
        began_ns = sorted(rows["close_wait_ns"][rows["state"] == TcpState.CLOSE_WAIT].tolist())
        assert began_ns[0] == 0
        assert before_ns < began_ns[1] < after_ns


def _half_closed(stack: contextlib.ExitStack, ns: Namespace, listener: socket.socket) -> None:
    client = stack.enter_context(ns.socket())
    client.connect(listener.getsockname())
    server = stack.enter_context(listener.accept()[0])
    client.shutdown(socket.SHUT_WR)
    assert server.recv(1) == b""


def test_rows_say_what_the_sockets_hold(source: CensusSource, stood: Standing) -> None:
    """Unread bytes with the FIN, directions shut, ages, and who holds it."""
    census = take(source, stood.far.ns)
    rows = census.sockets
    waiting = rows[rows["state"] == TcpState.CLOSE_WAIT]
    assert sorted(waiting["unread"].tolist()) == [1, 1, 1, 1, 11, 11, 11]
    assert set(waiting["shutdown"].tolist()) == {1}
    assert (waiting["age_received_ms"] >= 0).all()
    assert (waiting["age_received_ms"] < 60_000).all()
    by_ino = {int(row["ino"]): int(row["tgid"]) for row in census.owners}
    assert {by_ino[int(row["ino"])] for row in waiting} == {os.getpid()}
    facts = census.processes[os.getpid()]
    assert facts.open_fds == len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208 - its own is one
    assert facts.comm == Path("/proc/self/comm").read_text().rstrip("\n")
    last_ack = rows[rows["state"] == TcpState.LAST_ACK]
    assert set(last_ack["ino"].tolist()) == {0}
    assert set(last_ack["flags"].tolist()) == {2}
    assert set(last_ack["unacked"].tolist()) == {1}


def test_ports_are_counted_by_destination(source: CensusSource, stood: Standing) -> None:
    """Outbound on the client's side, one service on the server's."""
    near = take(source, stood.near.ns).ports
    to_service = near[near["rport"] == SERVICE_PORT]
    assert len(to_service) == 1
    row = to_service[0]
    full = sum(n for (state, _), n in stood.client.items() if state not in (6, 7)) - 1
    assert (row["in_use"], row["time_wait"], row["fin_wait2"]) == (full, 5, 4)
    assert row["in_range"] == full + 9
    assert row["remaining"].sum() == 5
    assert row["remaining"][:8].sum() == 0
    far = take(source, stood.far.ns).ports
    service = far[far["lport"] == SERVICE_PORT]
    assert len(service) == 1
    assert service[0]["inbound"] == 1
    simultaneous = far[far["lport"] == 0]
    assert simultaneous["in_use"].tolist() == [1]
    assert simultaneous["in_range"].tolist() == [1]


def test_a_recording_brings_it_back(source: CensusSource, stood: Standing, tmp_path: Path) -> None:
    """Bytes in, the same bytes out."""
    batch = source.take({stood.near.ns.inum}, owners=True)
    path = str(tmp_path / "census.fourwave")
    with RecordingWriter(path, {}) as writer:
        writer.write(batch)
    with RecordingSource(path) as recording:
        again = list(recording)
    assert again == [Batch(BatchKind.CENSUS, batch.mono_ns, batch.data)]
    assert counted(decode_census(again[0].data), stood.near.ns) == stood.client


def test_three_namespaces_at_once(source: CensusSource) -> None:
    """Each has its own counts and facts; asked for all, they are among all."""
    with contextlib.ExitStack() as stack:
        spaces = [stack.enter_context(namespace(f"census{n}")) for n in range(3)]
        for number, ns in enumerate(spaces):
            ns.sysctl("ipv4/ip_local_port_range", f"{20000 + number} 30000")
            for _ in range(number + 1):
                sock = stack.enter_context(ns.socket())
                sock.bind(("127.0.0.1", 0))
                sock.listen()
        census = decode_census(source.take(owners=True).data)
        for number, ns in enumerate(spaces):
            assert counted(census, ns) == {(10, 10): number + 1}
            facts = census.namespaces[ns.inum]
            assert facts.port_range == (20000 + number, 30000)
            assert facts.name == ns.name
        only = decode_census(source.take({spaces[1].inum}, owners=True).data)
        assert set(only.states["netns"].tolist()) == {spaces[1].inum}
        assert set(only.sockets["netns"].tolist()) == {spaces[1].inum}
        assert list(only.namespaces) == [spaces[1].inum]


def test_a_namespace_only_a_descriptor_holds(source: CensusSource) -> None:
    """No process, no mount: it is found by the descriptor when asked for."""
    with contextlib.ExitStack() as stack:
        ns = stack.enter_context(namespace("hidden"))
        sock = stack.enter_context(ns.socket())
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        ip("netns", "del", ns.name)
        try:
            census = take(source, ns)
        finally:
            ip("netns", "add", ns.name)  # namespace() deletes it at the end
        assert counted(census, ns) == {(10, 10): 1}
        assert census.namespaces[ns.inum].name is None


def test_a_namespace_only_its_sockets_keep(source: CensusSource) -> None:
    """Not even a descriptor of it: it is entered by a socket of somebody's."""
    with contextlib.ExitStack() as stack:
        with namespace("kept") as ns:
            sock = stack.enter_context(ns.socket())
            sock.bind(("127.0.0.1", 0))
            sock.listen()
        for wish in ({ns.inum}, None):
            census = decode_census(source.take(wish, owners=True).data)
            assert counted(census, ns) == {(10, 10): 1}
            assert "namespaces" not in census.truncated
        assert destroy(census.sockets[census.sockets["netns"] == ns.inum], census.namespaces) == [0]


def test_a_namespace_that_is_not_there_is_told(source: CensusSource) -> None:
    """What could not be looked at is counted."""
    census = decode_census(source.take({1}, owners=True).data)
    assert census.truncated == {"namespaces": 1}
    assert len(census.states) == 0


HOLD = "import sys; print('ready', flush=True); sys.stdin.read()"


def holding(sock: socket.socket) -> subprocess.Popen[bytes]:
    """Start a process that holds the socket until its input ends."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        pass_fds=[sock.fileno()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    return child


def test_a_shared_socket_has_several_owners(source: CensusSource) -> None:
    """After a fork both hold it, by whatever descriptor."""
    with contextlib.ExitStack() as stack:
        ns = stack.enter_context(namespace("shared"))
        sock = stack.enter_context(ns.socket())
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        child = stack.enter_context(holding(sock))
        census = take(source, ns)
        held = census.owners[census.owners["ino"] == os.fstat(sock.fileno()).st_ino]
        assert set(held["tgid"].tolist()) == {os.getpid(), child.pid}
        assert set(held["fd"].tolist()) == {sock.fileno()}
        assert (held["start_ns"] > 0).all()
        assert child.pid in census.processes
        child.communicate(b"", timeout=10)


def test_never_accepted_sockets_have_no_inode(source: CensusSource) -> None:
    """They wait in the listener's queue, which counts them."""
    with contextlib.ExitStack() as stack:
        ns = stack.enter_context(namespace("queue"))
        listener = stack.enter_context(ns.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        for _ in range(3):
            with ns.socket() as client:
                client.connect(listener.getsockname())
        wait_until(lambda: proc_net_tcp(ns)[8] == 3, "three in CLOSE_WAIT")
        census = take(source, ns)
        waiting = census.sockets[census.sockets["state"] == TcpState.CLOSE_WAIT]
        assert waiting["ino"].tolist() == [0, 0, 0]
        assert waiting["flags"].tolist() == [0, 0, 0]
        row = census.sockets[census.sockets["state"] == TcpState.LISTEN][0]
        assert (row["accept_queue"], row["accept_queue_limit"]) == (3, 16)


def test_drops_of_a_listener_are_the_namespaces(source: CensusSource) -> None:
    """One listener: its own count is ListenDrops."""
    with contextlib.ExitStack() as stack:
        ns = stack.enter_context(namespace("drops"))
        listener = stack.enter_context(ns.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        for _ in range(8):
            sock = stack.enter_context(ns.socket())
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect(listener.getsockname())

        def drops() -> int:
            return take(source, ns).namespaces[ns.inum].tcp_ext["ListenDrops"]

        wait_until(lambda: drops() > 0, "a dropped SYN")
        ns.sysctl("ipv4/tcp_syn_retries", "1")
        for _ in range(5):
            census = take(source, ns)
            row = census.sockets[census.sockets["state"] == TcpState.LISTEN][0]
            facts = census.namespaces[ns.inum].tcp_ext
            if row["drops"] == facts["ListenDrops"]:
                break
        assert row["drops"] == facts["ListenDrops"] == facts["ListenOverflows"]
        assert row["accept_queue"] == 2


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_families(source: CensusSource, family: int) -> None:
    """IPv6 as it is; IPv4 through a dual-stack listener is family 4."""
    with contextlib.ExitStack() as stack:
        ns = stack.enter_context(namespace("family"))
        listener = stack.enter_context(ns.socket(socket.AF_INET6))
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::", 0))
        listener.listen()
        client = stack.enter_context(ns.socket(family))
        host = "127.0.0.1" if family == socket.AF_INET else "::1"
        client.connect((host, listener.getsockname()[1]))
        server = stack.enter_context(listener.accept()[0])
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""
        rows = take(source, ns).sockets
        both = rows[rows["state"] != TcpState.LISTEN]
        assert len(both) == 2
        packed = socket.inet_pton(family, host)
        wanted = packed if len(packed) == 16 else bytes(10) + b"\xff\xff" + packed
        for row in both:
            assert (row["laddr"].tobytes(), row["raddr"].tobytes()) == (wanted, wanted)
            assert row["family"] == (4 if family == socket.AF_INET else 6)


@pytest.mark.parametrize("count", [1, 2, MANY])
def test_listening_sockets_alone(source: CensusSource, count: int) -> None:
    """The walk ends with the last of them, and it is not left out; nor is what follows others."""
    with contextlib.ExitStack() as stack:
        ns = stack.enter_context(namespace("listen"))
        listeners = [stack.enter_context(ns.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
        census = take(source, ns)
        assert counted(census, ns) == {(10, 10): count}
        assert len(np.unique(census.sockets["ino"])) == len(census.sockets) == count
        assert set(census.sockets["lport"].tolist()) == {
            listener.getsockname()[1] for listener in listeners
        }
        client = stack.enter_context(ns.socket())
        client.connect(listeners[0].getsockname())
        assert counted(take(source, ns), ns) == {(10, 10): count, (1, 1): 2}


def test_more_rows_than_one_read_takes(source: CensusSource) -> None:
    """A socket whose row did not fit is shown again: it is counted, and written, once."""
    with contextlib.ExitStack() as stack:
        ns = stack.enter_context(namespace("rows"))
        listener = stack.enter_context(ns.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(MANY)
        for _ in range(MANY):
            client = stack.enter_context(ns.socket())
            client.connect(listener.getsockname())
            stack.enter_context(listener.accept()[0])
            client.shutdown(socket.SHUT_WR)
        wait_until(lambda: proc_net_tcp(ns)[TcpState.CLOSE_WAIT] == MANY, "all in CLOSE_WAIT")
        census = take(source, ns)
        assert counted(census, ns) == {(5, 5): MANY, (8, 8): MANY, (10, 10): 1}
        assert len(census.sockets) == len(np.unique(census.sockets["cookie"])) == 2 * MANY + 1
        assert sorted(census.ports["in_use"].tolist()) == [MANY, MANY]
        assert set(census.owners["ino"].tolist()) >= set(census.sockets["ino"].tolist())


@pytest.mark.parametrize("piece", [1, 3, 7])
def test_a_walk_in_pieces_counts_each_socket_once(
    piece: int, source: CensusSource, stood: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No read goes over more than a piece; together they bring what one would."""
    whole = take(source, stood.near.ns)
    monkeypatch.setattr(walk, "PIECE", piece)
    reads = []
    read = walk._reads

    def counted_reads(link_fd: int) -> Iterator[bytes]:
        for chunk in read(link_fd):
            reads.append(chunk)
            yield chunk

    monkeypatch.setattr(walk, "_reads", counted_reads)
    census = take(source, stood.near.ns)
    assert counted(census, stood.near.ns) == counted(whole, stood.near.ns) == stood.client
    assert sorted(census.sockets["cookie"].tolist()) == sorted(whole.sockets["cookie"].tolist())
    walked = stood.client.total() - stood.client[TcpState.CLOSE, TcpState.CLOSE]
    assert len(reads) >= walked // piece


@pytest.mark.parametrize("mechanism", ["source", "second_choice"])
def test_rows_are_bounded_and_counts_are_not(
    mechanism: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A census of a million leaked sockets does not become a million rows."""
    source: CensusSource = request.getfixturevalue(mechanism)
    monkeypatch.setattr("tracer.kernel.census.ROWS_MAX", 30)
    with namespace("bounded") as ns, contextlib.ExitStack() as stack:
        listener = stack.enter_context(ns.socket())
        listener.bind(("127.0.0.1", SERVICE_PORT))
        listener.listen(MANY)
        for _ in range(100):
            with ns.socket() as client:
                client.connect(listener.getsockname())
                stack.enter_context(listener.accept()[0])
        wait_until(
            lambda: counted(take(source, ns), ns)[TcpState.CLOSE_WAIT, TcpState.CLOSE_WAIT] == 100,
            "all in CLOSE_WAIT",
        )
        census = take(source, ns, rows=(TcpState.LISTEN, TcpState.CLOSE_WAIT))
    states = census.sockets["state"].tolist()
    assert Counter(states) == {TcpState.CLOSE_WAIT: 30, TcpState.LISTEN: 1}
    assert census.truncated["sockets one by one"] == 70


@pytest.mark.slow
def test_two_hundred_thousand_in_time_wait(source: CensusSource) -> None:
    """Every one is counted, by destination and remaining time, and none becomes an object."""
    load.build()
    with namespace("many") as ns:
        load.fill_time_wait(ns, MANY_WAITING)
        before = sockstat(ns)["tw"]
        batch = source.take({ns.inum}, owners=False)
        after = sockstat(ns)["tw"]
        census = decode_census(batch.data)
        total = int(census.states["count"][census.states["state"] == TcpState.TIME_WAIT].sum())
        assert after <= total <= before
        assert before > 0.99 * MANY_WAITING
        assert census.ports["time_wait"].sum() + census.ports["fin_wait2"].sum() == total
        assert (census.ports["remaining"].sum(axis=1) == census.ports["time_wait"]).all()
        assert census.truncated == {}
        assert len(batch.data) < 100_000
