# SPDX-License-Identifier: Apache-2.0
"""Ladders: every kind of close can be drawn, narrow enough, with the right segments in order."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

import pytest

from tests.unit import builders as b
from tracer.outputs import ladder
from tracer.tcp import ConnFlag, Kind, RstFlag, SkFlag
from tracer.tcp import TcpState as S

if TYPE_CHECKING:
    from tracer.wire import Records

MADE = {
    "passive": (b.passive(), ["<FIN", "FIN + ACK>", "<ACK"]),
    "passive_four": (b.passive_four(), ["<FIN", "ACK>", "FIN>", "<ACK"]),
    "active": (b.active(), ["FIN>", "<FIN + ACK", "ACK>"]),
    "active_four": (b.active_four(), ["FIN>", "<ACK", "<FIN", "ACK>"]),
    "a FIN that may have been refused": (
        b.active_four(flags=b.OPENED | ConnFlag.DROPPED, at_close__rcv_nxt=1_011),
        ["FIN>", "<ACK (with the FIN?)", "<FIN", "ACK>"],
    ),
    "repair": (
        b.aborted(flags=b.OPENED | b.OWNED | ConnFlag.REPAIR, rst_flags=0, rst_sent_ns=0),
        [],
    ),
    "orphan": (b.orphan(), ["FIN>", "<ACK"]),
    "crossing": (b.crossing(), ["FIN>", "<FIN (they crossed)", "ACK>", "<ACK"]),
    "aborted": (b.aborted(), ["RST>"]),
    "reset": (b.reset(), ["<RST"]),
    "timeout": (b.timeout(), ["no answerx"]),
    "refused": (
        b.attempt(sk_err=111, rst_flags=RstFlag.RECEIVED),
        ["SYN>", "<RST + ACK"],
    ),
    "refused by ICMP": (b.attempt(sk_err=111), ["SYN>"]),
    "unread": (b.aborted(unread=5), ["<data, never read", "RST>"]),
    "no RST seen": (b.aborted(unread=5, rst_flags=0, rst_sent_ns=0), ["<data, never read"]),
    "fin_wait2": (
        b.record(
            **b.fin_wait1(
                states_seen=b.mask(S.ESTABLISHED, S.FIN_WAIT1, S.FIN_WAIT2),
                old_state=S.FIN_WAIT2,
                fin_acked_ns=b.FIN_NS,
                at_close__unacked=0,
            ),
            sk_flags=SkFlag.DEAD,
            rst_flags=RstFlag.SENT_ACTIVE,
            rst_sent_ns=b.CLOSED_NS,
        ),
        ["FIN>", "<ACK", "RST>"],
    ),
    "SYN taken back": (
        b.attempt(
            flags=ConnFlag.OPENED_PASSIVE,
            old_state=S.SYN_RECV,
            sk_err=104,
            rst_flags=RstFlag.RECEIVED,
        ),
        ["<SYN", "SYN + ACK>", "<RST"],
    ),
    "attempt_failed": (b.attempt(), ["SYNx"]),
}
SEGMENT = re.compile(r"\|(?P<to_us><?)-+ (?P<label>.+?) -+(?P<away>[>x]?)\s*\|")


def segments(lines: list[str]) -> list[str]:
    """Return the arrows as label and direction."""
    found = (SEGMENT.search(line) for line in lines)
    return [f"{hit['to_us']}{hit['label']}{hit['away']}" for hit in found if hit]


@pytest.mark.parametrize(("made", "expected"), MADE.values(), ids=MADE)
def test_segments_in_order(made: Records, expected: list[str]) -> None:
    """Who sent what, in the order it happened."""
    assert segments(ladder.draw(b.close_of(made), encoding="ascii")) == expected


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", None, "no-such-codec"])
@pytest.mark.parametrize(("made", "_"), MADE.values(), ids=MADE)
def test_fits_and_can_be_encoded(made: Records, _: list[str], encoding: str | None) -> None:
    """At most 72 columns, the longest addresses included, in whatever the terminal speaks."""
    made = made.copy()
    made["family"] = 6
    made["daddr"] = made["saddr"] = list(ipaddress.IPv6Address("2001:db8:1:2:3:4:5:6").packed)
    made["lport"] = made["rport"] = 65_535
    lines = ladder.draw(b.close_of(made), encoding=encoding)
    assert max(map(len, lines)) <= 72
    "\n".join(lines).encode("utf-8" if encoding == "utf-8" else "ascii")


def test_bars_stand_in_two_columns() -> None:
    """The rungs line up."""
    for made, _ in MADE.values():
        rungs = ladder.draw(b.close_of(made), encoding="ascii")[1:]
        bars = {tuple(at for at, char in enumerate(rung) if char == "|") for rung in rungs}
        assert len(bars) == 1


def test_times_count_from_the_first_fin() -> None:
    """The first FIN is zero, the last ACK a millisecond later."""
    lines = ladder.draw(b.close_of(b.passive()), encoding="ascii")
    assert [line.split()[0] for line in lines[2:]] == ["0", "+34us", "+1.0ms"]


def test_every_kind_has_a_story() -> None:
    """A new kind cannot be forgotten."""
    assert set(ladder.STORIES) == {kind.label for kind in Kind}
