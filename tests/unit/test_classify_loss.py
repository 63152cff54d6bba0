# SPDX-License-Identifier: Apache-2.0
"""Bytes lost by this end, told from its own sequence numbers; a FIN is no byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.unit import builders as b
from tracer.classify import judge
from tracer.classify_loss import data_lost, lost_early
from tracer.columns import Rows
from tracer.tcp import ConnFlag, RstFlag, SkFlag
from tracer.tcp import TcpState as S
from tracer.verdict import FALSE, NULL, TRUE

if TYPE_CHECKING:
    from tracer.wire import Records

GONE = SkFlag.DEAD | SkFlag.DONE
LINGER_ZERO = {"sk_flags": int(SkFlag.LINGER), "lingertime_jiffies": 0}


@pytest.mark.parametrize(
    ("what", "made", "expected"),
    [
        ("graceful", b.passive(), False),
        ("graceful", b.active(), False),
        ("graceful", b.crossing(), False),
        ("let go with the FIN unread", b.passive(sk_flags=GONE, unread=1), False),
        ("let go unread, by a FIN: sockmap", b.passive(sk_flags=GONE, unread=5), True),
        ("the same, by an orphan", b.orphan(unread=4), True),
        ("unread, and still held", b.passive(sk_flags=SkFlag.DONE, unread=5), False),
        ("the peer's FIN and what comes with it went to a mini-socket", b.orphan(), None),
        ("unread", b.aborted(unread=5), True),
        ("linger 0, all said", b.aborted(**LINGER_ZERO), False),
        (
            "linger 0, a FIN unread",
            b.aborted(sk_flags=SkFlag.LINGER | SkFlag.DONE, unread=1),
            False,
        ),
        ("linger 0, unacknowledged", b.aborted(**LINGER_ZERO, at_close__unacked=7), True),
        ("linger 0, unsent", b.aborted(**LINGER_ZERO, at_close__unsent=7), True),
        ("reset, all acknowledged", b.reset(), False),
        ("reset, what came can still be read", b.reset(unread=9), False),
        ("reset, unacknowledged", b.reset(at_close__unacked=1), True),
        ("reset, our FIN unacknowledged", b.reset(**b.fin_wait1()), False),
        ("reset, our FIN and a byte", b.reset(**b.fin_wait1(at_close__unacked=2)), True),
        ("reset, our FIN unsent", b.reset(**b.fin_wait1(at_close__unacked=0)), False),
        ("timeout", b.timeout(), True),
        ("timeout, only our FIN", b.timeout(**b.fin_wait1()), False),
        ("attempt", b.attempt(sk_err=110), None),
        ("refused", b.attempt(sk_err=111), None),
        ("unknown", b.record(), None),
        ("MPTCP", b.reset(flags=ConnFlag.MPTCP_SUBFLOW, at_close__unacked=1), None),
    ],
)
def test_lost(what: str, made: Records, expected: bool | None) -> None:
    assert b.close_of(made).data_lost is expected, what


def test_data_after_close_is_lost_whatever_else() -> None:
    made = b.aborted(
        **b.fin_wait1(at_close__unacked=0),
        rst_flags=b.REPLY_AFTER,
        at_close__data_segs_in=1,
        sk_err=104,
    )
    close = b.close_of(made)
    assert (close.cause, close.data_lost) == ("data_after_close", True)


def test_destroyed_from_outside_can_still_be_read() -> None:
    made = b.aborted(sk_err=103, unread=5, rst_flags=RstFlag.SENT_ACTIVE)
    assert (b.close_of(made).cause, b.close_of(made).data_lost) == ("sock_destroy", False)


@pytest.mark.parametrize(
    ("unacked", "unsent", "old", "shown"),
    [
        (5, 0, S.ESTABLISHED, (5, 0)),
        (5, 3, S.ESTABLISHED, (5, 3)),
        (5, 0, S.FIN_WAIT1, (4, 0)),
        (5, 3, S.LAST_ACK, (5, 2)),
        (0, 0, S.CLOSING, (0, 0)),
        (0, 1, S.FIN_WAIT1, (0, 0)),
    ],
)
def test_our_fin_is_no_byte(unacked: int, unsent: int, old: S, shown: tuple[int, int]) -> None:
    made = b.timeout(
        old_state=old,
        states_seen=b.mask(S.ESTABLISHED) | 1 << old,
        at_close__unacked=unacked,
        at_close__unsent=unsent,
    )
    close = b.close_of(made)
    assert (close.unacked_bytes, close.unsent_bytes) == shown


@pytest.mark.parametrize(
    ("made", "ending"),
    [
        (b.aborted(**LINGER_ZERO), "; nothing was lost"),
        (
            b.aborted(**LINGER_ZERO, unread=0, at_close__unacked=7),
            "7 bytes of ours never acknowledged",
        ),
        (
            b.reset(at_close__unacked=2, at_close__unsent=1),
            "; lost: 2 bytes of ours never acknowledged, 1 byte of ours never sent",
        ),
        (b.reset(unread=9), "; 9 bytes can still be read; all bytes of ours were acknowledged"),
        (b.timeout(**b.fin_wait1()), "; nothing was lost"),
        (b.aborted(unread=5), "without reading 5 bytes the peer had sent: we sent a RST"),
    ],
)
def test_the_sentence_says_so(made: Records, ending: str) -> None:
    assert b.close_of(made).why.endswith(ending)


def test_our_fin_alone_is_called_so() -> None:
    assert b.close_of(b.timeout(**b.fin_wait1())).why.startswith(
        "the peer did not acknowledge our FIN in FIN_WAIT1"
    )


def test_noise_is_one_of_three() -> None:
    made = b.noise(np.random.default_rng(4), 5_000)
    assert set(data_lost(made, judge(made, b.HOST)).tolist()) <= {FALSE, TRUE, NULL}


def test_a_connection_left_in_repair_mode_may_live_on() -> None:
    made = b.aborted(flags=b.OPENED | b.OWNED | ConnFlag.REPAIR, unread=5)
    assert (b.close_of(made).cause, b.close_of(made).data_lost) == ("disconnect", None)
    reasons = judge(made, b.HOST)
    assert lost_early(Rows(made, np.arange(1)), reasons).tolist() == [NULL]
