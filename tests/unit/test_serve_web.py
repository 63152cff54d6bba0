# SPDX-License-Identifier: Apache-2.0
"""The tracer's end of the web process, which may end at any time."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

import pytest

from tracer import serve_web
from tracer.errors import FourwaveError, UsageError
from tracer.serve_web import SAME, Listening, Web, listen

if TYPE_CHECKING:
    from collections.abc import Iterator


class Child:
    """A process that ended when told to."""

    returncode = -9

    def __init__(self) -> None:
        self.ended = False

    def poll(self) -> int | None:
        """Return its status."""
        return self.returncode if self.ended else None


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Web, list[socket.socket]]]:
    """Give a Web whose processes are only channels: the other end of each, the newest last."""
    ends: list[socket.socket] = []

    def start(self: Web) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.setblocking(False)
        self._child = Child()  # type: ignore[assignment]
        ends.append(theirs)

    monkeypatch.setattr(Web, "_start", start)
    monkeypatch.setattr(serve_web, "RESTART_S", 0)
    made = Web(Listening([]), None, None)
    yield made, ends
    made.forget()
    for end in ends:
        end.close()


def test_an_idle_host_says_it_is_the_same(web: tuple[Web, list[socket.socket]]) -> None:
    made, ends = web
    made.show(b"samples")
    made.show_again()
    assert [ends[0].recv(100), ends[0].recv(100)] == [b"samples", SAME]


def test_a_new_process_gets_the_last_samples_whole(web: tuple[Web, list[socket.socket]]) -> None:
    """On an idle host no others would ever come."""
    made, ends = web
    made.show(b"samples")
    made._child.ended = True  # type: ignore[attr-defined]
    made.show_again()
    assert len(ends) == 2
    assert ends[1].recv(100) == b"samples"


def test_a_program_out_of_reach_is_told_at_start(
    web: tuple[Web, list[socket.socket]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Not when the web process has ended, and it is too late."""
    web[0].warn()
    assert not capsys.readouterr().err
    monkeypatch.setattr(sys, "executable", "/root/out/of/reach")
    web[0].warn()
    said = capsys.readouterr().err
    assert "/root/out/of/reach" in said
    assert "pipx install --global" in said


def test_a_process_too_busy_does_not_stop_the_tracer(web: tuple[Web, list[socket.socket]]) -> None:
    made, _ = web
    for _ in range(10_000):
        made.show(b"x" * 1000)


def test_an_address_that_is_not_ours_is_told() -> None:
    with pytest.raises(FourwaveError, match=r"203\.0\.113\.1:1: .*errno"):
        listen([("203.0.113.1", 1)])


def test_a_name_that_does_not_resolve_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="cannot listen"):
        listen([("no.such.host.invalid", 1)])


def test_a_port_may_be_left_to_the_kernel() -> None:
    with listen([("127.0.0.1", 0), ("::1", 0)]) as listening:
        assert [name.rsplit(":", 1)[0] for name in listening.names] == ["127.0.0.1", "[::1]"]
