# SPDX-License-Identifier: Apache-2.0
"""CLOSE_WAIT made on the running kernel by services of every habit, and the verdict on each."""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernel.leaking import Service
from tests.kernel.looks import census, until
from tests.truth.netns import namespace
from tracer.detectors import close_wait_verdict
from tracer.detectors.close_wait_leak import CloseWaitLeak
from tracer.detectors.close_wait_verdict import Verdict
from tracer.detectors.finding import Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.truth.netns import Namespace
    from tracer.detectors.close_wait_leak import CloseWaitFinding
    from tracer.kernel.census import CensusSource

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
OLDER_MS = 200
COUNT = 23
WORKERS = 3
EVIL = b"\x1b[2J\r\nroot\xff\xe2\x80\xae"  # clears the screen, begins a line, turns it round


@pytest.fixture(autouse=True)
def _settles_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(close_wait_verdict, "SETTLING_S", 1.5)


@pytest.fixture
def ns() -> Iterator[Namespace]:
    """A namespace of its own."""
    with namespace("leaks") as made:
        yield made


def visit(ns: Namespace, port: int, *, send: bytes = b"", count: int = 1) -> None:
    """Connect, send, and be the first to close."""
    for _ in range(count):
        with ns.socket() as client:
            client.connect(("127.0.0.1", port))
            client.sendall(send)


@contextlib.contextmanager
def visits(ns: Namespace, port: int, every_s: float) -> Iterator[list[float]]:
    """Visit again and again while the block runs; return the times, which grow."""
    end = threading.Event()
    times: list[float] = []

    def run() -> None:
        while not end.wait(every_s):
            visit(ns, port)
            times.append(time.monotonic())

    visitor = threading.Thread(target=run)
    visitor.start()
    try:
        yield times
    finally:
        end.set()
        visitor.join()


def per_minute(times: list[float]) -> float:
    """Return how fast visits came: a busy host makes fewer."""
    return 60 * (len(times) - 1) / (times[-1] - times[0])


def judged(
    source: CensusSource,
    ns: Namespace,
    holds: Callable[[CloseWaitFinding], bool],
    detector: CloseWaitLeak | None = None,
) -> CloseWaitFinding:
    """Look until the only finding is as expected."""
    watching = detector or CloseWaitLeak(OLDER_MS)
    found = until(
        lambda: watching.look(census(source, ns.inum)).findings,
        lambda findings: len(findings) == 1 and holds(findings[0]),
    )
    return found[0]


@pytest.mark.parametrize("habit", ["forgets", "forgets_async"])
def test_leak_grows(census_source: CensusSource, ns: Namespace, habit: str) -> None:
    """Threads and asyncio that read to the end and forget: the rate is the visitors'."""
    with Service(ns, habit) as service, visits(ns, service.port, 0.05) as times:
        finding = judged(census_source, ns, lambda f: f.settled and f.evidence.count >= COUNT)
    assert finding.verdict == Verdict.LEAK
    assert finding.evidence.eof_read == finding.evidence.count
    assert finding.evidence.per_minute == pytest.approx(per_minute(times), rel=0.35)
    assert finding.place.lport == service.port
    assert [holder.pid for holder in finding.holders] == [service.pid]
    assert finding.nofile_reached_s is not None


def test_leak_by_one_look(census_source: CensusSource, ns: Namespace) -> None:
    """The ages of the sockets tell that they keep coming, and how fast."""
    with Service(ns, "forgets") as service, visits(ns, service.port, 0.05) as times:
        finding = until(
            lambda: CloseWaitLeak(OLDER_MS).look(census(census_source, ns.inum)).findings,
            lambda found: bool(found) and found[0].evidence.count >= 2 * COUNT,
        )[0]
    assert finding.verdict == Verdict.LEAK
    assert not finding.settled
    assert finding.evidence.per_minute == pytest.approx(per_minute(times), rel=0.35)


def test_never_read(census_source: CensusSource, ns: Namespace) -> None:
    """Accepted, never read: every byte that waits is counted, the end is none of them."""
    with Service(ns, "never_reads") as service:
        visit(ns, service.port, send=b"x" * 1000, count=COUNT)
        finding = judged(census_source, ns, lambda f: f.settled and f.evidence.count == COUNT)
    assert finding.verdict == Verdict.LEAK
    assert finding.evidence.data_pending == COUNT
    assert finding.evidence.unread_bytes == 1000 * COUNT
    assert finding.evidence.per_minute == 0


def test_shared_by_forked_workers(census_source: CensusSource, ns: Namespace) -> None:
    """The parent accepted, its children hold on: all of them are named."""
    with Service(ns, "forks") as service:
        visit(ns, service.port, count=COUNT)
        judged(census_source, ns, lambda f: f.evidence.eof_read == COUNT)
        service.tell("fork 2")
        finding = judged(census_source, ns, lambda f: f.holder_count == 3)
    assert finding.evidence.count == COUNT
    assert finding.holders[0].pid == service.pid


def test_workers_are_told_apart(census_source: CensusSource, ns: Namespace) -> None:
    """One service, and a group for each worker that forgets one of its own."""
    with Service(ns, "preforks", WORKERS) as service, contextlib.ExitStack() as stack:
        for _ in range(WORKERS):  # each is busy with one until we close it
            client = stack.enter_context(ns.socket())
            client.connect(("127.0.0.1", service.port))
        until(lambda: _queued(census_source, ns), lambda count: count == 0)
        stack.close()
        found = until(
            lambda: CloseWaitLeak(OLDER_MS).look(census(census_source, ns.inum)).findings,
            lambda findings: sum(f.evidence.eof_read for f in findings) == WORKERS,
        )
    assert [finding.holder_count for finding in found] == [1] * WORKERS
    assert len({finding.holders[0].pid for finding in found} - {service.pid}) == WORKERS
    assert {finding.place.lport for finding in found} == {service.port}


def _queued(source: CensusSource, ns: Namespace) -> int:
    return int(census(source, ns.inum).sockets["accept_queue"].sum())


def test_share_is_of_the_limit_there_is_now(census_source: CensusSource, ns: Namespace) -> None:
    """RLIMIT_NOFILE may be changed from outside; near it, it is grave."""
    with Service(ns, "forgets") as service:
        visit(ns, service.port, count=COUNT)
        judged(census_source, ns, lambda f: f.evidence.eof_read == COUNT)
        for soft, severity in ((10 * COUNT, Severity.NOTICE), (COUNT + 5, Severity.CRITICAL)):
            resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (soft, 20_000))
            (finding,) = CloseWaitLeak(0).look(census(census_source, ns.inum)).findings
            assert finding.nofile_soft == soft
            assert finding.nofile_share == COUNT / soft
            assert finding.open_fds is not None
            assert finding.open_fds > COUNT
            assert finding.severity == severity


def test_descriptors_run_out_when_it_says(census_source: CensusSource, ns: Namespace) -> None:
    """One look tells when the limit is reached; it is not waited for, only nearly."""
    with Service(ns, "forgets") as service, visits(ns, service.port, 0.05):
        counted = judged(census_source, ns, lambda f: f.evidence.count >= COUNT)
        assert counted.open_fds is not None
        soft = counted.open_fds + 3 * COUNT
        resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (soft, soft))
        told = judged(census_source, ns, lambda f: f.nofile_soft == soft and _runs_out(f))
        began = time.monotonic()
        until(lambda: _open_fds(service.pid), lambda count: count >= soft - 3)
        took_s = time.monotonic() - began
    assert told.nofile_reached_s is not None
    assert 0.4 < told.nofile_reached_s / took_s < 2.5  # visits come as a busy host lets them


def _runs_out(finding: CloseWaitFinding) -> bool:
    return finding.nofile_reached_s is not None


def _open_fds(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_waits_for_the_collector(census_source: CensusSource, ns: Namespace) -> None:
    """It grows, then one collection closes all: not a leak for ever."""
    detector = CloseWaitLeak(OLDER_MS)
    with Service(ns, "leaves_to_gc") as service, visits(ns, service.port, 0.05):
        grown = judged(census_source, ns, lambda f: f.settled and f.evidence.count > 20, detector)
        assert grown.verdict == Verdict.LEAK
        service.tell("collect")
        finding = judged(census_source, ns, lambda f: f.verdict == Verdict.AWAITS_GC, detector)
    assert finding.settled


def test_closes_late(census_source: CensusSource, ns: Namespace) -> None:
    """Each is closed in the end, one by one, as fast as new ones come."""
    detector = CloseWaitLeak(OLDER_MS)
    with Service(ns, "forgets") as service:
        visit(ns, service.port, count=COUNT)
        judged(census_source, ns, lambda f: f.evidence.count == COUNT, detector)

        def look() -> CloseWaitFinding:
            visit(ns, service.port)
            service.tell("close 1")
            return detector.look(census(census_source, ns.inum)).findings[0]

        finding = until(look, lambda f: f.settled and f.verdict == Verdict.LATE_CLOSE)
    assert abs(finding.evidence.count - COUNT) < 10


def test_half_close_in_use(census_source: CensusSource, ns: Namespace) -> None:
    """The peer has said all, and still listens."""
    with Service(ns, "keeps_sending") as service, ns.socket() as client:
        client.connect(("127.0.0.1", service.port))
        client.shutdown(socket.SHUT_WR)
        reader = threading.Thread(target=_drain, args=(client,))
        reader.start()
        finding = judged(census_source, ns, lambda f: f.evidence.oldest_ms > 5 * OLDER_MS)
        client.shutdown(socket.SHUT_RD)
    reader.join()
    assert finding.verdict == Verdict.HALF_CLOSE


def _drain(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while client.recv(65_536):
            pass


def test_stuck_in_the_accept_queue(census_source: CensusSource, ns: Namespace) -> None:
    """Nobody has it yet; the one who is to take it is named."""
    with Service(ns, "never_accepts") as service:
        visit(ns, service.port, send=b"hello", count=COUNT)
        finding = judged(census_source, ns, lambda f: f.evidence.count == COUNT)
    assert finding.verdict == Verdict.ACCEPT_QUEUE
    assert [holder.pid for holder in finding.holders] == [service.pid]
    assert finding.evidence.unread_bytes == 5 * COUNT


def test_idle_pool(census_source: CensusSource, ns: Namespace) -> None:
    """We connected, the other side closed all: bounded, nobody looked since."""
    with ns.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        port = server.getsockname()[1]
        with Service(ns, "pools", port) as client:
            client.tell(f"connect {COUNT}")
            for _ in range(COUNT):
                server.accept()[0].close()
            finding = judged(census_source, ns, lambda f: f.settled and f.evidence.count == COUNT)
    assert finding.verdict == Verdict.IDLE_POOL
    assert (finding.place.raddr, finding.place.rport) == ("127.0.0.1", port)
    assert finding.evidence.eof_pending == COUNT


def test_namespaces_are_told_apart(census_source: CensusSource) -> None:
    """The same service leaks in three namespaces at once, each its own number."""
    wanted = {}
    with contextlib.ExitStack() as stack:
        for count in (2, 3, 5):
            here = stack.enter_context(namespace("leaks"))
            service = stack.enter_context(Service(here, "forgets"))
            visit(here, service.port, count=count)
            wanted[here.inum, here.name, service.pid] = count

        def look() -> dict[tuple[int, str | None, int], int]:
            taken = census(census_source, *(inum for inum, *_ in wanted))
            return {
                (f.place.netns, taken.namespaces[f.place.netns].name, f.holders[0].pid): (
                    f.evidence.eof_read
                )
                for f in CloseWaitLeak(OLDER_MS).look(taken).findings
            }

        assert until(look, lambda seen: seen == wanted) == wanted


def test_command_line(ns: Namespace) -> None:
    """The table names the process; JSON has the counts; a running view ends with 0."""
    with Service(ns, "forgets") as service:
        visit(ns, service.port, count=COUNT)

        def run(*words: str) -> str:
            command = [sys.executable, "-m", "tracer", "leaks", "--older", "0.2", *words]
            done = subprocess.run(
                [*command, "--netns", ns.name], cwd=ROOT, capture_output=True, text=True, check=True
            )
            return done.stdout

        def group(text: str) -> dict[str, object]:
            found: dict[str, object] = json.loads(text.splitlines()[0])
            return found

        told = until(lambda: group(run("--json")), lambda found: found.get("eof_read") == COUNT)
        assert told["verdict"] == "leak"
        assert told["netns_name"] == ns.name
        assert told["lport"] == service.port
        table = run()
        assert f"python[{service.pid}]" in table
        assert max(map(len, table.splitlines())) <= 79
        assert f"{COUNT} of {COUNT} sockets in CLOSE_WAIT older than 200ms" in run("--comm", "py*")
        assert f"None of {COUNT} sockets in CLOSE_WAIT is what" in run("--comm", "nobody")
        assert "all younger" in run("--older", "3600")


def test_a_name_is_no_more_than_text(ns: Namespace) -> None:
    """Whatever a process calls itself, a terminal prints it, and its number is there to read."""
    with Service(ns, "forgets") as service:
        service.tell(f"rename {EVIL.hex()}")
        visit(ns, service.port, count=COUNT)
        command = [sys.executable, "-m", "tracer", "leaks", "--older", "0", "--netns", ns.name]

        def table() -> str:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            return done.stdout

        shown = until(table, lambda text: f"{COUNT} of {COUNT} sockets" in text)
    assert all(line.isprintable() for line in shown.splitlines())
    assert f"[{service.pid}]" in shown
    assert "\\x1b" in shown


def test_age_is_exact_when_it_was_seen(ns: Namespace) -> None:
    """What enters CLOSE_WAIT while a view runs; an upper bound that is the lower one."""
    command = [sys.executable, "-m", "tracer", "leaks", "--json", "--watch", "0.2"]
    command += ["--older", "0.5", "--sockets", "1", "--netns", ns.name]
    with Service(ns, "forgets") as service:
        view = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert view.stdout is not None
        lines = view.stdout
        with lines:
            assert json.loads(lines.readline())["sockets"] == 0
            visit(ns, service.port)
            told = until(lambda: json.loads(lines.readline()), lambda one: "verdict" in one)
            view.send_signal(signal.SIGINT)
        assert view.wait(10) == 0
    (socket_,) = told["sockets"]
    assert socket_["age_s"] == socket_["age_at_most_s"] == told["oldest_at_most_s"]


def test_running_view_ends_with_0(ns: Namespace) -> None:
    """SIGINT is how a view is meant to end."""
    command = [sys.executable, "-m", "tracer", "leaks", "--json", "--watch", "0.1"]
    view = subprocess.Popen(
        [*command, "--netns", ns.name], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert view.stdout is not None
    with view.stdout:
        assert json.loads(view.stdout.readline())["sockets"] == 0
        assert json.loads(view.stdout.readline())["sockets"] == 0
        view.send_signal(signal.SIGINT)
    assert view.wait(10) == 0
