# SPDX-License-Identifier: Apache-2.0
"""SIGPIPE belongs to the connection it was raised for, whichever system call sent."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from tests.kernel import refusing
from tests.kernel.conftest import watch_of
from tests.truth.scenario import Stage
from tests.truth.sockets import Flavour, read_eof, set_linger_zero
from tracer.kernel.btf import Btf
from tracer.kernel.facts import knows_sender

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.truth.compare import Record
    from tests.truth.netns import Net
    from tests.truth.sockets import Pair
    from tests.truth.watch import Watch

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(
        not knows_sender(Btf()), reason="this kernel does not tell which descriptor is sent on"
    ),
]

COUNT = 5
WORDS = b"words"


def splice(sock: socket.socket) -> None:
    """Send from a pipe."""
    ours, theirs = os.pipe()
    try:
        os.write(theirs, WORDS)
        os.splice(ours, sock.fileno(), len(WORDS))
    finally:
        os.close(ours)
        os.close(theirs)


def sendfile(sock: socket.socket) -> None:
    """Send from a file."""
    with tempfile.TemporaryFile() as file:
        file.write(WORDS)
        file.flush()
        os.sendfile(sock.fileno(), file.fileno(), 0, len(WORDS))


SENDS: dict[str, Callable[[socket.socket], object]] = {
    "write": lambda sock: os.write(sock.fileno(), WORDS),
    "writev": lambda sock: os.writev(sock.fileno(), [WORDS]),
    "sendto": lambda sock: sock.send(WORDS),
    "sendmsg": lambda sock: sock.sendmsg([WORDS]),
    "sendfile": sendfile,
    "splice": splice,
}


def records(net: Net, watch: Watch, act: Callable[[Pair], object]) -> dict[int, Record]:
    """Make some connections, act on each and close it; return the first ends' records by port."""
    since = watch.mark()
    with contextlib.closing(Stage(net, Flavour.V4, COUNT)) as stage:
        pairs = stage.talked()
        for pair in pairs:
            act(pair)
            pair.close()
        ports = {pair.made.client[1] for pair in pairs}
    found = watch.wait_records(net.inums, since, 2 * COUNT)
    return {one["lport"]: one for one in found if one["lport"] in ports}


def send_after_shutdown(pair: Pair, send: Callable[[socket.socket], object]) -> None:
    """Send after our own FIN: EPIPE, and SIGPIPE, which Python ignores."""
    pair.first.shutdown(socket.SHUT_WR)
    with pytest.raises(BrokenPipeError):
        send(pair.first)


@pytest.mark.parametrize("name", SENDS)
def test_a_send_after_our_own_fin(name: str, loopback_net: Net, tracer_watch: Watch) -> None:
    """Before the end, by each system call that can send."""
    found = records(loopback_net, tracer_watch, lambda pair: send_after_shutdown(pair, SENDS[name]))
    assert [one["sigpipe"] for one in found.values()] == [True] * COUNT
    assert all(one["why"].endswith("; a send raised SIGPIPE") for one in found.values())


def test_without_its_program_no_sigpipe_is_known(
    loopback_net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All else is traced; what is missing is said at once, and why by `doctor`."""
    refusing.refuse("signal", tmp_path, monkeypatch)
    with watch_of(loopback_net) as watch:
        found = records(loopback_net, watch, lambda pair: send_after_shutdown(pair, SENDS["write"]))
    assert [(one["kind"], one["sigpipe"]) for one in found.values()] == [("active", None)] * COUNT
    assert any("no SIGPIPE by connection" in line for line in watch.errors)
    doctor = subprocess.run(
        [sys.executable, "-m", "tracer", "doctor"], capture_output=True, text=True, check=False
    )
    assert "SIGPIPE not told by connection (load signal: " in " ".join(doctor.stdout.split())


def test_a_send_after_the_peers_reset(loopback_net: Net, tracer_watch: Watch) -> None:
    """After the end: the first send is told of the RST, the second one raises SIGPIPE."""

    def act(pair: Pair) -> None:
        set_linger_zero(pair.second)
        pair.second.close()
        with pytest.raises(ConnectionResetError):
            read_eof(pair.first)
        for _ in range(3):
            with pytest.raises(BrokenPipeError):
                pair.first.send(WORDS)

    found = records(loopback_net, tracer_watch, act)
    shown = [(one["kind"], one["err"], one["sigpipe"]) for one in found.values()]
    assert shown == [("reset", "ECONNRESET", True)] * COUNT


@pytest.mark.parametrize("name", ["MSG_NOSIGNAL", "another pipe", "kill"])
def test_what_is_no_sigpipe_of_a_send(name: str, loopback_net: Net, tracer_watch: Watch) -> None:
    """EPIPE without the signal, and the signal without a send on the connection."""

    def act(pair: Pair) -> None:
        pair.first.shutdown(socket.SHUT_WR)
        if name == "MSG_NOSIGNAL":
            with pytest.raises(BrokenPipeError):
                pair.first.send(WORDS, socket.MSG_NOSIGNAL)
        elif name == "another pipe":
            ours, theirs = os.pipe()
            os.close(ours)
            with pytest.raises(BrokenPipeError):
                os.write(theirs, WORDS)
            os.close(theirs)
        else:
            os.kill(os.getpid(), signal.SIGPIPE)

    found = records(loopback_net, tracer_watch, act)
    assert [one["sigpipe"] for one in found.values()] == [None] * COUNT
