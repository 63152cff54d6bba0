# SPDX-License-Identifier: Apache-2.0
"""No object of the JSON contract contradicts itself: all kinds there is a recording of."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from click.testing import CliRunner

from tests.golden.replay import FOLDER, SUFFIX
from tests.truth.consistent import contradictions
from tracer.cli import cli

if TYPE_CHECKING:
    from tests.truth.compare import Record

RECORDINGS: Final = sorted(path.stem for path in FOLDER.glob(f"*{SUFFIX}"))


def closes_of(name: str) -> list[Record]:
    """Return what `replay --json` shows of a recording."""
    shown = CliRunner().invoke(cli, ["replay", "--json", str(FOLDER / f"{name}{SUFFIX}")])
    return [json.loads(line) for line in shown.stdout.splitlines()]


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_kind_is_consistent(name: str) -> None:
    closes = closes_of(name)
    assert closes
    assert [contradictions(close) for close in closes] == [[]] * len(closes)


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({"at": "2026-11-20T17:36:41Z"}, "at has nanoseconds"),
        ({"cause": "peer"}, "a cause where no FINs ended it"),
        ({"fin_ack": "pure"}, "three segments: on the FIN"),
        ({"evidence": None}, "a handshake rests on evidence"),
        ({"rst_reason": "SK_RST_REASON_TCP_STATE"}, "a reason of a RST that was sent"),
        ({"teardown_us": 0}, "teardown_us"),
        ({"lifetime_us": None}, "lifetime_us"),
        ({"close_wait_us": 0}, "close_wait_us"),
        ({"unread_bytes": 1 << 40}, "unread was received"),
        ({"unsent_bytes": 1}, "FINs leave nothing behind"),
        ({"data_lost": True}, "FINs lose nothing of ours"),
        ({"why": "three segments."}, "one plain sentence"),
    ],
)
def test_a_contradiction_is_named(change: dict[str, Any], broken: str) -> None:
    passive = next(close for close in closes_of("three_way") if close["kind"] == "passive")
    assert contradictions({**passive, **change}) == [broken]


def test_a_timeline_out_of_order_is_named() -> None:
    passive = next(close for close in closes_of("three_way") if close["kind"] == "passive")
    line = dict(reversed(passive["timeline_us"].items()))
    assert contradictions({**passive, "timeline_us": line}) == ["the timeline is in order"]
