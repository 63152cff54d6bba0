# SPDX-License-Identifier: Apache-2.0
"""What every object of the JSON contract must keep to by itself, whatever the packets were."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.truth.compare import Record

AT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")
GRACEFUL: Final = ("active", "passive", "simultaneous")
NEVER_OPEN: Final = ("refused", "attempt_failed")
FIRST_MOMENTS: Final = ("fin_sent", "fin_received", "rst_sent", "rst_received")
ROUNDING_US: Final = 1


def contradictions(record: Record) -> list[str]:
    """Return the rules that a record breaks, by name."""
    rules = {**_words(record), **_times(record), **_waits(record), **_bytes(record)}
    return [name for name, holds in rules.items() if not holds]


def _words(record: Record) -> dict[str, bool]:
    kind, handshake, why = record["kind"], record["handshake"], record["why"]
    graceful = kind in GRACEFUL
    return {
        "at has nanoseconds": AT.fullmatch(record["at"]) is not None,
        "a cause where no FINs ended it": (record["cause"] is None) == graceful
        or kind == "attempt_failed",
        "a handshake needs two FINs": handshake is None or graceful,
        "three segments: on the FIN": (record["fin_ack"] == "fin") == (handshake == "three_way"),
        "a carrier needs a handshake": record["fin_ack"] is None or handshake is not None,
        "a handshake rests on evidence": (record["evidence"] is None) == (handshake is None),
        "who was reset is told an error": kind != "reset" or record["err"] is not None,
        "a reason of a RST that was sent": record["rst_reason"] is None
        or "rst_sent" in record["timeline_us"],
        "one plain sentence": why.isprintable() and "None" not in why and not why.endswith("."),
    }


def _times(record: Record) -> dict[str, bool]:
    line, closed_us = record["timeline_us"], record["timeline_us"]["closed"]
    firsts = [line[name] for name in FIRST_MOMENTS if name in line]
    teardown_us = max(0, closed_us - min(firsts)) if firsts else None
    lifetime_us = closed_us if record["opened"] else None
    return {
        "the timeline is in order": [*line.values()] == sorted(line.values()),
        "nothing is before its beginning": min(line.values()) >= 0,
        "what failed to open never was": record["kind"] not in NEVER_OPEN
        or "established" not in line,
        "lifetime_us": _same(record["lifetime_us"], lifetime_us),
        "teardown_us": _same(record["teardown_us"], teardown_us),
    }


def _waits(record: Record) -> dict[str, bool]:
    line, ack = record["timeline_us"], record["delayed_ack"]
    if ack is None:
        return {"close_wait_us": record["close_wait_us"] is None}
    received_us = line["fin_received"]
    waited_us = line.get("fin_sent", line["closed"]) - received_us
    after_us = line["ack_sent"] - received_us if "ack_sent" in line else None
    return {
        "close_wait_us": _same(record["close_wait_us"], waited_us),
        "delayed_ack.after_us": _same(ack["after_us"], after_us),
        "delayed_ack.fate": (ack["fate"] is not None) == (record["kind"] == "passive"),
    }


def _bytes(record: Record) -> dict[str, bool]:
    outstanding = record["unacked_bytes"] + record["unsent_bytes"]
    graceful = record["kind"] in GRACEFUL
    return {
        "unread was received": 0 <= record["unread_bytes"] <= record["rx_bytes"],
        "unacked was sent": 0 <= record["unacked_bytes"] <= record["tx_bytes"],
        "FINs leave nothing behind": not graceful or outstanding == 0,
        "FINs lose nothing of ours": not graceful
        or record["data_lost"] is not True
        or record["unread_bytes"] > 0,
    }


def _same(said_us: int | None, expected_us: int | None) -> bool:
    if said_us is None or expected_us is None:
        return said_us is expected_us
    return abs(said_us - expected_us) <= ROUNDING_US
