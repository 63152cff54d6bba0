# SPDX-License-Identifier: Apache-2.0
"""docs/closes.md: a section for every word of the contract, with the ladder fourwave draws."""

from __future__ import annotations

import ipaddress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.unit import builders as b
from tracer.close import Close
from tracer.outputs import ladder, live, topics
from tracer.tcp import AckFlag, Cause, FileRef, Handshake, Kind, RstFlag, SkFlag
from tracer.tcp import TcpState as S

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracer.wire import Records

ROOT: Final = Path(__file__).parents[2]
DOCUMENT: Final = ROOT / "docs/closes.md"
SECTIONS: Final = topics.sections()
BY_KEY: Final = {(section.group, section.name): section for section in SECTIONS}
LABELS: Final = [
    (group, member.label)
    for group, enum in (("kind", Kind), ("handshake", Handshake), ("cause", Cause))
    for member in enum
    if member.label is not None and (group, member.label) != ("handshake", "simultaneous")
]
# Keys that say more than one word can.
KEYS: Final = [
    ("key", name) for name in ("data_lost", "delayed_ack", "err", "sigpipe", "time_wait")
]
PARTS: Final = ["What it means", "At fault", "What to do"]


def mapped(address: str) -> bytes:
    return ipaddress.IPv6Address(f"::ffff:{address}").packed


ENDS: Final = {"saddr": mapped("192.0.2.1"), "daddr": mapped("192.0.2.2")}
CLIENT: Final = {**ENDS, "lport": 40_000, "rport": 443}
SERVER: Final = {**ENDS, "lport": 443, "rport": 40_000}


# A moment so many milliseconds after the first FIN.
def after(ms: float) -> int:
    return b.FIN_NS + int(ms * b.MS)


# Four ways at the pace of a delayed ACK and an application that took its time.
def active_four() -> Records:
    moments = {"fin_acked_ns": after(40), "fin_received_ns": after(85), "closed_ns": after(85)}
    return b.active_four(**CLIENT, **moments)


def passive_four() -> Records:
    return b.passive_four(**SERVER, fin_sent_ns=after(85), closed_ns=after(85.2))


def fin_wait2(seconds: float) -> dict[str, Any]:
    """Return the fields of a socket whose FIN was acknowledged, so long after it."""
    return b.fin_wait1(
        states_seen=b.mask(S.ESTABLISHED, S.FIN_WAIT1, S.FIN_WAIT2),
        old_state=S.FIN_WAIT2,
        fin_acked_ns=after(0.2),
        at_close__unacked=0,
        closed_ns=after(seconds * 1000),
        rst_sent_ns=after(seconds * 1000),
        sk_flags=SkFlag.DEAD,
    )


def silent(seconds: float, **fields: Any) -> Records:
    """Return a connection that a timer ended so long after it was established."""
    return b.timeout(**CLIENT, closed_ns=b.OPENED_NS + int(seconds * 1e9), **fields)


def unread() -> Records:
    return b.aborted(**SERVER, unread=5)


def peer_reset() -> Records:
    return b.reset(**CLIENT)


def refused() -> Records:
    return b.attempt(
        **CLIENT, sk_err=111, rst_flags=RstFlag.RECEIVED, closed_ns=b.OPENED_NS + 200_000
    )


LINGER_ZERO: Final = {"sk_flags": SkFlag.LINGER, "lingertime_jiffies": 0}
KEEPALIVE: Final = {
    "at_close__unacked": 0,
    "probes_out": 9,
    "sk_flags": SkFlag.KEEPOPEN,
    "rst_flags": RstFlag.SENT_ACTIVE,
}

# What each section draws: the record of a close that is called so.
SPECIMENS: Final[dict[tuple[str, str], Callable[[], Records]]] = {
    ("kind", "active"): active_four,
    ("kind", "passive"): passive_four,
    ("kind", "simultaneous"): lambda: b.crossing(**CLIENT),
    ("kind", "abort"): lambda: b.aborted(**CLIENT, **LINGER_ZERO),
    ("kind", "reset"): peer_reset,
    ("kind", "timeout"): lambda: silent(924),
    ("kind", "refused"): refused,
    ("kind", "attempt_failed"): lambda: b.attempt(
        **CLIENT, sk_err=110, retransmits=6, closed_ns=b.OPENED_NS + 131 * 1000 * b.MS
    ),
    ("kind", "unknown"): lambda: b.record(**CLIENT),
    ("handshake", "four_way"): passive_four,
    ("handshake", "three_way"): lambda: b.passive(**SERVER),
    ("cause", "unread_data"): unread,
    ("cause", "linger_zero"): lambda: b.aborted(**CLIENT, **LINGER_ZERO),
    ("cause", "data_after_close"): lambda: b.aborted(
        **CLIENT,
        **b.fin_wait1(),
        sk_err=104,
        flags=b.OPENED,
        rst_flags=b.REPLY_AFTER | RstFlag.RECEIVED,
    ),
    ("cause", "disconnect"): lambda: b.aborted(
        **CLIENT, close_actor_file_ref=FileRef.ALIVE, sk_shutdown=0
    ),
    ("cause", "out_of_memory"): lambda: b.aborted(**SERVER, **b.fin_wait1(), sk_flags=SkFlag.DEAD),
    ("cause", "retransmit_timeout"): lambda: silent(924),
    ("cause", "keepalive"): lambda: silent(7875, **KEEPALIVE),
    ("cause", "user_timeout"): lambda: silent(20, user_timeout_ms=20_000),
    ("cause", "fin_wait2_timeout"): lambda: b.record(
        **SERVER, **fin_wait2(60), rst_flags=RstFlag.SENT_ACTIVE
    ),
    ("cause", "sock_destroy"): lambda: b.record(
        **CLIENT,
        sk_err=103,
        rst_flags=RstFlag.SENT_ACTIVE,
        rst_sent_ns=b.CLOSED_NS,
        flags=b.OPENED | b.OWNED,
    ),
    ("cause", "no_listener"): refused,
    ("cause", "peer"): peer_reset,
    ("cause", "unknown"): lambda: b.aborted(**CLIENT, flags=b.OPENED, closer__flags=0),
    ("key", "data_lost"): lambda: b.reset(**CLIENT, at_close__unacked=5),
    ("key", "delayed_ack"): lambda: b.passive_four(
        **SERVER,
        fin_sent_ns=after(85),
        closed_ns=after(85.2),
        ack_flags=AckFlag.CLOCK_KNOWN | AckFlag.CLOCK_MOVED,
        fin_clock_10us=4_000,
    ),
    ("key", "err"): peer_reset,
    ("key", "sigpipe"): peer_reset,
    ("key", "time_wait"): lambda: b.orphan(**CLIENT, fin_acked_ns=after(40), closed_ns=after(40)),
}


def test_every_word_of_the_contract_has_its_section() -> None:
    """Exactly one each; the handshake `simultaneous` is that of the kind."""
    assert sorted(BY_KEY) == sorted([*LABELS, *KEYS])
    assert {name for _, name in KEYS} <= {field.name for field in fields(Close)}
    assert len(BY_KEY) == len(SECTIONS)
    assert set(SPECIMENS) == set(BY_KEY)


@pytest.mark.parametrize("key", SPECIMENS, ids=" ".join)
def test_ladder_is_the_one_that_is_drawn(key: tuple[str, str]) -> None:
    """The document shows what fourwave draws for such a close, line by line."""
    close = b.close_of(SPECIMENS[key]())
    assert key in KEYS or getattr(close, key[0]) == key[1]
    assert ladder.draw(close) == list(BY_KEY[key].ladder)


@pytest.mark.parametrize("key", BY_KEY, ids=" ".join)
def test_section_is_complete_and_narrow(key: tuple[str, str]) -> None:
    """One line that says it, then meaning, fault and remedy, in 80 columns on any terminal."""
    section = BY_KEY[key]
    assert len(section.summary) <= topics.SUMMARY_WIDTH
    assert section.summary.endswith(".")
    assert list(section.parts) == PARTS
    assert all(section.parts.values())
    for encoding in ("utf-8", "ascii"):
        lines = topics.as_text(section, encoding=encoding, color=False).splitlines()
        assert max(map(len, lines)) < 80
        "\n".join(lines).encode(encoding)
    assert max(map(len, section.ladder)) <= 72


def test_document_is_narrow_and_its_words_are_ascii() -> None:
    """A terminal shows the file as it is; only ladders are drawn with more than ASCII."""
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    assert max(map(len, lines)) < 80
    glyphs = set("".join(vars_of(ladder.UNICODE)))
    assert {char for line in lines for char in line if not char.isascii()} <= glyphs


def vars_of(glyphs: ladder.Glyphs) -> list[str]:
    return [getattr(glyphs, name) for name in glyphs.__slots__]


def test_the_document_is_package_data() -> None:
    """What a wheel takes from the package is the very file of the documentation."""
    assert (ROOT / "tracer/closes.md").resolve() == DOCUMENT


def test_words_that_watch_abbreviates_are_known() -> None:
    """Whatever stands in the columns KIND and SEGS can be asked for."""
    shown = {*live.KIND_WORDS.values(), *live.CAUSE_WORDS.values(), *live.SEGMENTS.values()}
    assert all(topics.find(word) for word in shown)


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("UNREAD-DATA", [("cause", "unread_data")]),
        (" Active ", [("kind", "active")]),
        ("unknown", [("kind", "unknown"), ("cause", "unknown")]),
        ("late_data", [("cause", "data_after_close")]),
        ("4data", [("handshake", "four_way")]),
        ("ECONNRESET", [("cause", "peer")]),
        ("none", []),
        ("unred_data", []),
        ("", []),
    ],
)
def test_find(word: str, names: list[tuple[str, str]]) -> None:
    """In any case, with either dash; nothing is guessed."""
    assert [(section.group, section.name) for section in topics.find(word)] == names


@pytest.mark.parametrize(
    ("word", "near"),
    [("unred_data", ["unread_data"]), ("fin-wait2", ["fin_wait2_timeout"]), ("xyz", [])],
)
def test_near_misses(word: str, near: list[str]) -> None:
    """A slip of the finger is understood, noise is not."""
    assert topics.near(word)[:1] == near
