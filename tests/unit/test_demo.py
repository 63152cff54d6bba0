# SPDX-License-Identifier: Apache-2.0
"""The demo's judge and its hand-made segments, without a kernel."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

import pytest

from tests.unit import builders as b
from tracer.demo import run, tun
from tracer.demo.scenarios import SCENARIOS
from tracer.outputs import ladder
from tracer.tcp import Cause, FinAck, Handshake, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracer.wire import Records

CLIENT = ("::ffff:0:0", 40_000, "0.0.0.0", 80)  # noqa: S104 - a key, not an address to bind
ANSWER = {"scenario": "linger_zero", "ends": {"client": list(CLIENT)}}


def judge(made: Records) -> run.Outcome:
    """Return what the judge says when this close came for the client's end."""
    return run._judge(ANSWER, run.Collector(1, {CLIENT: b.close_of(made)}))


def test_right_and_wrong_verdicts() -> None:
    """A verdict that differs from what was made is named, key by key."""
    wrong = judge(b.active()).wrong
    assert "the client's kind is active, but was made abort" in wrong
    assert "the server's close was not reported" in wrong


def test_what_is_skipped_or_failed_is_told() -> None:
    """Skipped is not wrong, failed is."""
    nothing = run.Collector(1)
    skipped = run._judge({"scenario": "simultaneous", "skipped": "no TUN"}, nothing)
    failed = run._judge({"scenario": "three_way", "failed": "EMFILE"}, nothing)
    assert (skipped.wrong, skipped.skipped) == ([], "no TUN")
    assert failed.wrong == ["it could not be made: EMFILE"]
    assert run._verdict([skipped, failed]) == (
        "0 of 2 scenarios were judged as they were made; ended early; skipped: simultaneous; "
        "WRONG: three_way"
    )


@pytest.mark.parametrize("shown", [0, 2])
def test_what_was_interrupted_is_not_wrong(
    shown: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scenarios that did not come to their turn are no wrong verdicts."""
    right = run.Outcome(SCENARIOS[0], {}, [])

    def interrupted() -> Iterator[run.Outcome]:
        yield from [right] * shown
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "_outcomes", interrupted)
    if not shown:
        with pytest.raises(KeyboardInterrupt):
            run.demonstrate(as_json=False, color=False)
        return
    assert run.demonstrate(as_json=False, color=False) == 0
    words = "2 of 2 scenarios were judged as they were made; ended early"
    assert words in capsys.readouterr().err


def test_outcome_as_json_and_text() -> None:
    """Both forms carry the verdict, text in 72 columns."""
    outcome = judge(b.aborted())
    shown = json.loads(run._as_json(outcome))
    assert (shown["scenario"], shown["ok"]) == ("linger_zero", False)
    assert shown["closes"]["client"]["kind"] == "abort"
    lines = run._as_text(outcome, color=False).splitlines()
    assert "WRONG: the server's close was not reported" in lines[-1]
    assert max(map(len, lines)) <= run.WIDTH


def test_table_speaks_the_contract() -> None:
    """Names are unique, and what is wanted can be had."""
    labels = {
        "kind": {kind.label for kind in Kind},
        "handshake": {shake.label for shake in Handshake},
        "fin_ack": {carrier.label for carrier in FinAck},
        "cause": {cause.label for cause in Cause},
    }
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)
    for scenario in SCENARIOS:
        for wanted in scenario.wanted.values():
            for key in labels.keys() & wanted.keys():
                assert wanted[key] in labels[key], scenario.name


def test_every_kind_but_unknown_is_made() -> None:
    """The demo makes each kind of the contract."""
    made = {wanted["kind"] for scenario in SCENARIOS for wanted in scenario.wanted.values()}
    assert made == set(ladder.STORIES) - {"unknown"}


@pytest.mark.parametrize("payload", [b"", b"odd", b"even"])
def test_hand_made_segments_are_sound(payload: bytes) -> None:
    """Checksums over the packet with them in it come to zero (RFC 1071), lengths fit."""
    packet = tun._packet(40_000, 2**32 + 5, 7, tun.FIN | tun.ACK, payload)
    head, segment = packet[: tun.IPV4.size], packet[tun.IPV4.size :]
    pseudo = head[12:20] + struct.pack("!BBH", 0, 6, len(segment))
    assert tun._checksum(head) == 0
    assert tun._checksum(pseudo + segment) == 0
    assert struct.unpack_from("!H", packet, 2)[0] == len(packet)


def test_segments_of_others_are_left_alone() -> None:
    """What is not TCP over IPv4 to our port is no segment."""
    packet = tun._packet(40_000, 1, 1, tun.ACK, b"")
    assert tun._parse(packet) is None  # goes to port 40,000
    assert tun._parse(b"\x60" + packet[1:]) is None
    assert tun._parse(packet[:30]) is None


def test_sequence_space() -> None:
    """SYN and FIN count one, and numbers wrap."""
    assert tun.Segment(1, 2**32 - 1, tun.FIN, 2).end == 2
    assert tun.Segment(1, 10, tun.SYN, 0).end == 11
    assert tun.Segment(1, 10, tun.ACK, 0).end == 10
