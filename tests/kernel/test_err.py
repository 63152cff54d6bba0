# SPDX-License-Identifier: Apache-2.0
"""An error the application took before the end is still in the record."""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import TYPE_CHECKING

import pytest

from tests.kernel import refusing
from tests.kernel.conftest import watch_of
from tests.truth.icmp import host_unreachable
from tests.truth.packets import ACK
from tests.truth.scenario import Stage
from tests.truth.sockets import Flavour, read_eof, read_exactly
from tests.truth.wire import Mode, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.truth.watch import Watch
    from tests.truth.wire import WiredNet

pytestmark = pytest.mark.kernel

IP_RECVERR = 11
COUNT = 7
KINDS = ("active", "passive")
WORDS = b"words"


def test_an_icmp_error_that_was_taken(wired_net: WiredNet, tracer_watch: Watch) -> None:
    """With IP_RECVERR it is told at once; the connection goes on and ends in order."""
    assert errors_kept(wired_net, tracer_watch) == {
        "active": ["EHOSTUNREACH"] * COUNT,
        "passive": [None] * COUNT,
    }


def test_without_its_program_such_an_error_is_not_known(
    wired_net: WiredNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All else is traced, and what is missing is said at once."""
    refusing.refuse("error_report", tmp_path, monkeypatch)
    with watch_of(wired_net.net) as watch:
        kept = errors_kept(wired_net, watch)
    assert kept == {"active": [None] * COUNT, "passive": [None] * COUNT}
    assert any("no errors from before the end" in line for line in watch.errors)


def errors_kept(wired_net: WiredNet, watch: Watch) -> dict[str, list[str | None]]:
    """Have one end of connections take an error and go on; return `err` by kind of the ends."""
    wire, since = wired_net.wire, watch.mark()
    with contextlib.closing(Stage(wired_net.net, Flavour.V4, COUNT, wire=wire)) as stage:
        pairs = stage.quiet()
        for pair in pairs:
            pair.first.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        wire.set_mode(Mode.HOLD, stage.from_first)
        for pair in pairs:
            pair.first.sendall(WORDS)
        wire.wait_held(stage.from_first, ACK, COUNT)
        for packet in wire.held(stage.from_first)[:COUNT]:
            wire.inject(stage.to_first, host_unreachable(packet))
        told = [take_error(pair.first) for pair in pairs]
        wire.set_mode(Mode.PASS, stage.from_first)
        for pair in pairs:
            read_exactly(pair.second, len(WORDS))
            pair.first.close()
            read_eof(pair.second)
            pair.second.close()
    assert told == [errno.EHOSTUNREACH] * COUNT
    records = watch.wait_records(wired_net.net.inums, since, 2 * COUNT)
    return {kind: [r["err"] for r in records if r["kind"] == kind] for kind in KINDS}


def take_error(sock: socket.socket) -> int:
    """Return SO_ERROR once there is one; that puts it away."""
    found: list[int] = []

    def ask() -> bool:
        found.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        return bool(found[-1])

    wait_until(ask, "an error")
    return found[-1]
