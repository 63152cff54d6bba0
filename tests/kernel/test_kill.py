# SPDX-License-Identifier: Apache-2.0
"""Stale sockets ended from outside: what is named, and nothing else."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pty
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.leaking import Service
from tests.kernel.looks import until
from tests.truth.netns import namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.truth.netns import Namespace

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
COUNT = 5


@pytest.fixture
def ns() -> Iterator[Namespace]:
    """A namespace of its own."""
    with namespace("kill") as made:
        yield made


@pytest.fixture
def leaks(ns: Namespace) -> Iterator[tuple[Service, Service]]:
    """Two services that both keep what their peers have closed."""
    with Service(ns, "forgets") as one, Service(ns, "forgets") as other:
        for service in (one, other):
            for _ in range(COUNT):
                with ns.socket() as client:
                    client.connect(("127.0.0.1", service.port))
        until(lambda: len(listed(ns, "--port", one.port, "--port", other.port)), _all_are_there)
        yield one, other


def _all_are_there(count: int) -> bool:
    return count == 2 * COUNT


def kill(ns: Namespace, *words: object, answer: str = "") -> subprocess.CompletedProcess[str]:
    """Run it on this namespace."""
    command = [sys.executable, "-m", "tracer", "kill", "--older", "0.1", "--netns", ns.name]
    return subprocess.run(
        [*command, *map(str, words)],
        cwd=ROOT, capture_output=True, text=True, check=False, input=answer,
    )  # fmt: skip


def listed(ns: Namespace, *words: object) -> list[dict[str, Any]]:
    """Return what it would end."""
    return [json.loads(line) for line in kill(ns, "--json", *words).stdout.splitlines()]


def test_shows_and_does_nothing(ns: Namespace, leaks: tuple[Service, Service]) -> None:
    """The list, what both sides will see, and how to do it."""
    one, _ = leaks
    done = kill(ns, "--pid", one.pid)
    assert done.returncode == 0
    assert done.stdout.count(f"python[{one.pid}]") == COUNT
    assert "ECONNABORTED" in done.stdout
    assert "Nothing was done" in done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 79
    assert len(listed(ns, "--pid", one.pid)) == COUNT


def test_ends_what_is_named(ns: Namespace, leaks: tuple[Service, Service]) -> None:
    """The one service's sockets are gone, the other's are not."""
    one, other = leaks
    done = kill(ns, "--json", "--pid", one.pid, "--execute", "--yes")
    assert done.returncode == 0
    ended = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["ended"] for one in ended] == [True] * COUNT
    assert {socket["lport"] for socket in ended} == {one.port}
    left = listed(ns)
    assert [socket["lport"] for socket in left] == [other.port] * COUNT


def test_asks_first(ns: Namespace, leaks: tuple[Service, Service]) -> None:
    """Where nobody can be asked, nothing is ended."""
    done = kill(ns, "--execute")
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert len(listed(ns)) == 2 * COUNT
    assert leaks


class Asked:
    """It runs on a terminal, has shown what it would end, and waits for an answer."""

    def __init__(self, ns: Namespace, *words: object) -> None:
        self._terminal, theirs = pty.openpty()
        command = [sys.executable, "-m", "tracer", "kill", "--older", "0.1", "--netns", ns.name]
        self._process = subprocess.Popen(
            [*command, *map(str, words), "--execute"],
            cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs,
        )  # fmt: skip
        os.close(theirs)
        self.shown = ""
        while not self.shown.endswith("[y/N]: "):
            self.shown += os.read(self._terminal, 4096).decode()

    def answer(self, word: str) -> str:
        """Return what it says to that; it must end well."""
        os.write(self._terminal, f"{word}\n".encode())
        said = b""
        with contextlib.suppress(OSError):  # EIO: it has ended
            while more := os.read(self._terminal, 4096):
                said += more
        os.close(self._terminal)
        assert self._process.wait(10) == 0
        return said.decode()


@pytest.mark.parametrize("word", ["", "y"])
def test_only_a_yes_ends_them(word: str, ns: Namespace, leaks: tuple[Service, Service]) -> None:
    """Somebody sits there: first it shows, then it asks, and nothing is done before."""
    one, other = leaks
    asked = Asked(ns, "--pid", one.pid)
    assert asked.shown.count(f"python[{one.pid}]") == COUNT
    assert f"End {COUNT} sockets?" in asked.shown
    assert len(listed(ns)) == 2 * COUNT
    said = asked.answer(word)
    assert (f"{COUNT} sockets ended." if word == "y" else "Nothing was done.") in said
    left = Counter(socket["lport"] for socket in listed(ns))
    assert (left[one.port], left[other.port]) == (0 if word == "y" else COUNT, COUNT)


def test_what_changes_while_it_asks_is_left_alone(
    ns: Namespace, leaks: tuple[Service, Service]
) -> None:
    """Two are closed, and one comes that nobody agreed to end."""
    one, _ = leaks
    asked = Asked(ns, "--pid", one.pid)
    one.tell("close 2")
    with ns.socket() as client:
        client.connect(("127.0.0.1", one.port))
    until(lambda: len(listed(ns, "--pid", one.pid)), lambda count: count == COUNT - 2 + 1)
    said = asked.answer("y")
    assert f"{COUNT - 2} sockets ended." in said
    assert "2 sockets not: changed since it was shown, left alone." in said
    assert len(listed(ns, "--pid", one.pid)) == 1


def test_peer_of_fin_wait2_sees_a_reset(ns: Namespace) -> None:
    """We have closed our side and wait; the peer writes on, and is told."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ns.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(8)
        client = stack.enter_context(ns.socket())
        client.connect(server.getsockname())
        conn, _ = server.accept()
        stack.enter_context(conn)
        conn.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
        words = ("--state", "fin_wait2", "--port", server.getsockname()[1])
        until(lambda: listed(ns, *words), bool)
        done = kill(ns, *words, "--execute", "--yes")
        assert "1 socket ended." in done.stderr
        assert _error_of_sending(client) in (errno.ECONNRESET, errno.EPIPE)


def _error_of_sending(client: socket.socket) -> int | None:
    try:
        client.send(b"x")
        client.send(b"x")
    except OSError as error:
        return error.errno
    return None
