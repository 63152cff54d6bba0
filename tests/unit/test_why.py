# SPDX-License-Identifier: Apache-2.0
"""One sentence for everything, with the right figures and no claim too many."""

from __future__ import annotations

import pytest

from tests.unit import builders as b
from tracer.tcp import ActorFlag, How, RstFlag, SkFlag
from tracer.tcp import TcpState as S
from tracer.verdict import Reason
from tracer.why import SENTENCES, why
from tracer.why_facts import Facts, duration, plural


def test_every_reason_has_a_sentence() -> None:
    assert set(SENTENCES) == set(Reason)


@pytest.mark.parametrize("reason", list(Reason))
@pytest.mark.parametrize("how", list(How))
@pytest.mark.parametrize("err", [None, "ETIMEDOUT"])
def test_a_sentence_is_one_plain_sentence(reason: Reason, how: How, err: str | None) -> None:
    """With next to nothing known it still reads: no full stop, no None, no empty bracket."""
    text = why(Facts(reason=reason, how=how, err=err))
    assert text.strip() == text
    assert text.isprintable()
    assert "None" not in text
    assert " ()" not in text
    assert not text.endswith(".")
    assert 20 < len(text) < 260


def test_sentences_differ() -> None:
    """Two rules, two sentences: the reader can tell which one spoke."""
    texts = [why(Facts(reason=reason, err="E")) for reason in Reason]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize(
    ("ato_jiffies", "rx", "expected"),
    [
        (10, 101, "before the 40 ms delayed ACK"),
        (0, 1, "before the delayed ACK, due at the next timer tick, since no data had ever come"),
        (0, 101, "before the delayed ACK, due at the next timer tick"),
        (30, 101, "before the delayed ACK, due within 120 ms"),
        (100, 101, "before the delayed ACK, due within 200 ms"),
    ],
)
def test_the_delayed_ack_that_did_not_come(ato_jiffies: int, rx: int, expected: str) -> None:
    close = b.close_of(b.passive(ack_ato_jiffies=ato_jiffies, bytes_received=rx))
    assert close.why.endswith(expected)


@pytest.mark.parametrize(
    ("exit_code", "words"),
    [
        (3 << 8, "the process exited with status 3"),
        (0, "the process exited,"),
        (9, "signal 9 killed the process"),
    ],
)
def test_how_a_process_died(exit_code: int, words: str) -> None:
    made = b.crossing(
        closer__flags=ActorFlag.VALID | ActorFlag.EXITING, closer__exit_code=exit_code
    )
    assert words in b.close_of(made).why


def test_an_unseen_fin_has_no_figures() -> None:
    """Opened, and the FIN received, before the tracer: no wait, no timer is claimed."""
    made = b.passive(fin_received_ns=0, flags=0, states_seen=b.mask(S.CLOSE_WAIT, S.LAST_ACK))
    assert b.close_of(made).why == (
        "three segments: the peer's FIN waited an unknown time, nothing was left to send, and "
        "the application closed before the delayed ACK"
    )


def test_a_fin_may_wait_without_data() -> None:
    """The host's own queue held it: no data is made up."""
    waiting = b.crossing(at_halfway__unsent=1)
    assert b.close_of(waiting).why.startswith("four segments: the application closed, and")
    behind_data = b.crossing(at_halfway__unsent=101, at_fin_sent__unsent=100)
    assert "closed with data still to send, and" in b.close_of(behind_data).why


def test_who_closed_is_said() -> None:
    killed = b.passive_four(closer__flags=ActorFlag.VALID | ActorFlag.EXITING, closer__exit_code=9)
    assert "signal 9 killed the process" in b.close_of(killed).why
    assert "our side closed" in b.close_of(b.passive_four(closer__flags=0)).why


def test_what_became_of_the_active_side() -> None:
    assert b.close_of(b.orphan()).why.endswith("; a mini-socket awaits the peer's FIN")
    assert b.close_of(b.orphan(tw_substate=0)).why.endswith(
        "; no room was left to await the peer's FIN"
    )
    assert b.close_of(b.active(tw_substate=0)).why.endswith("; no room was left for TIME_WAIT")
    assert b.close_of(b.active(tw_substate=255)).why.endswith("the ACK of ours")


def test_a_rst_is_claimed_only_when_seen() -> None:
    assert b.close_of(b.aborted(unread=5)).why == (
        "the application closed without reading 5 bytes the peer had sent: we sent a RST"
    )
    assert b.close_of(b.aborted(unread=5, rst_flags=0)).why.endswith("no RST was seen to leave")
    named = b.aborted(unread=5, rst_flags=b.ACTIVE_AFTER | RstFlag.HAS_REASON, rst_reason=11)
    assert b.close_of(named).why.endswith("(SK_RST_REASON_TCP_ABORT_ON_CLOSE)")


def test_linger_zero_needs_no_rst_when_all_is_sent() -> None:
    made = b.aborted(
        old_state=S.LAST_ACK,
        states_seen=b.mask(S.CLOSE_WAIT, S.LAST_ACK),
        sk_flags=SkFlag.LINGER | SkFlag.DONE,
        at_close__unacked=1,
        rst_flags=0,
    )
    assert "no RST was needed" in b.close_of(made).why


def test_a_timeout_has_its_figures() -> None:
    assert b.close_of(b.timeout()).why == (
        "the peer did not acknowledge 1,000 bytes in ESTABLISHED; given up after "
        "15 retransmissions (ETIMEDOUT)"
    )


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0, "0 µs"),
        (999, "999 µs"),
        (1_000, "1 ms"),
        (1_250, "1.2 ms"),
        (9_990, "9.9 ms"),
        (40_000, "40 ms"),
        (999_999, "999 ms"),
        (3_400_000, "3.4 s"),
        (119_000_000, "119 s"),
        (120_000_000, "2 min"),
        (7_200_000_000, "2 h"),
    ],
)
def test_duration(us: int, text: str) -> None:
    assert duration(us) == text


def test_plural() -> None:
    assert [plural(n, "byte") for n in (0, 1, 2_000)] == ["0 bytes", "1 byte", "2,000 bytes"]
