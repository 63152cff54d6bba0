# SPDX-License-Identifier: Apache-2.0
"""The FIN's ACK, lost data, TIME_WAIT and RSTs without a connection: counted, and summed up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.unit import builders as b
from tracer.aggregator import Aggregator, Snapshot, StrayReset, strays_of
from tracer.classify import classify, judge
from tracer.outputs.summary import as_text
from tracer.outputs.summary_evidence import CHANGES as CHANGES_WORDS
from tracer.outputs.summary_evidence import FATES, STRAYS
from tracer.tcp import AckFate, ActorFlag, ConnFlag, FileRef, Kind, Stray, TimeWait, TimeWaitChange
from tracer.verdict import Reason

if TYPE_CHECKING:
    from tracer.wire import Records

TIMER = {"ack_flags": 0x30, "fin_clock_10us": 4_000}


def snapshot_of(*records: Records, **totals: object) -> Snapshot:
    """Return what a run of these records comes to."""
    made = np.concatenate(records)
    aggregator = Aggregator(records=len(made))
    aggregator.add(made, judge(made, b.HOST))
    aggregator.add_counters({"closes": len(made), "programs": {}, **totals})
    return aggregator.snapshot()


def text_of(snapshot: Snapshot) -> str:
    """Return the summary on one line."""
    return " ".join(as_text(snapshot).split())


def test_fates_are_of_passive_closes() -> None:
    counted = snapshot_of(*[b.passive()] * 5, *[b.passive_four(**TIMER)] * 3, b.active(), b.reset())
    assert counted.ack_fates == {AckFate.MERGED: 5, AckFate.TIMER: 3}


def test_losses_are_of_ends_without_two_fins() -> None:
    counted = snapshot_of(
        *[b.reset()] * 3,
        *[b.reset(at_close__unacked=5)] * 2,
        b.aborted(unread=5),
        b.timeout(flags=b.OPENED | 8),
        b.passive(),
        b.attempt(sk_err=111),
    )
    assert counted.data_lost == {
        (Kind.RESET, False): 3,
        (Kind.RESET, True): 2,
        (Kind.ABORT, True): 1,
        (Kind.TIMEOUT, None): 1,
    }


def test_time_wait_is_of_who_was_due_for_it() -> None:
    counted = snapshot_of(
        *[b.active()] * 4,
        *[b.orphan()] * 3,
        *[b.active(tw_substate=0)] * 2,
        b.active(tw_substate=255),
        b.crossing(),
        b.crossing(at_halfway__unsent=1),
        b.passive(),
        b.reset(),
    )
    assert counted.time_wait == {
        TimeWait.ENTERED: 6,
        TimeWait.ORPHANED: 3,
        TimeWait.REFUSED: 2,
        TimeWait.UNKNOWN: 1,
    }


def test_counts_agree_with_verdicts() -> None:
    """Whatever the bytes are, what is counted is what is shown."""
    made = b.noise(np.random.default_rng(8), 20_000)
    verdicts = classify(made, b.HOST)
    counted = snapshot_of(made)
    passive = verdicts[verdicts["kind"] == Kind.PASSIVE]
    shown = np.bincount(passive["ack_fate"], minlength=len(AckFate))
    assert counted.ack_fates == {fate: shown[fate] for fate in AckFate if shown[fate]}
    early = np.isin(verdicts["kind"], [Kind.ABORT, Kind.RESET, Kind.TIMEOUT])
    assert sum(counted.data_lost.values()) == np.count_nonzero(early)
    lost = early & (verdicts["data_lost"] == 1)
    told = sum(count for (_, answer), count in counted.data_lost.items() if answer)
    assert told == np.count_nonzero(lost)


def test_strays_come_from_the_totals() -> None:
    snapshot = snapshot_of(b.passive(), strays=[[1, 80, 2, 9, 3], [1, 8080, 1, 1, 120]])
    assert snapshot.strays == (
        StrayReset(1, 8080, Stray.NO_SOCKET, 1, 120),
        StrayReset(1, 80, Stray.TIME_WAIT, 9, 3),
    )


@pytest.mark.parametrize("rows", [[[1, 2]], [[1, 2, 9, 0, 1]], [None], ["abcde"]])
def test_rows_that_are_none_are_refused(rows: list[list[int]]) -> None:
    with pytest.raises((ValueError, TypeError)):
        strays_of(rows)


def test_the_summary_says_it() -> None:
    text = text_of(
        snapshot_of(
            *[b.passive()] * 2,
            b.passive_four(**TIMER),
            b.active(),
            b.orphan(),
            b.active(tw_substate=0),
            b.reset(at_close__unacked=5),
            b.aborted(sk_flags=16),
            strays=[[1, 8080, 1, 1, 100], [2, 8080, 1, 1, 20], [1, 80, 2, 9, 3]],
        )
    )
    assert "our ACK left: 2 on our FIN, 1 by the delayed-ACK timer." in text
    assert "Data lost by 1 of 2 aborts, resets and timeouts." in text
    assert "TIME_WAIT: 1 entered, 1 left to await the peer's FIN first, 1 REFUSED" in text
    assert "120 from port 8080 (nothing listens there), 3 from port 80 (already in" in text


def test_other_ports_and_those_without_room_are_one_number() -> None:
    rows = [[1, port, 1, 1, 10] for port in range(1, 8)]
    assert "25 on other ports" in text_of(snapshot_of(b.reset(), strays=rows, strays_lost=5))


def test_nothing_to_say_is_no_line() -> None:
    text = text_of(snapshot_of(b.attempt(sk_err=111)))
    for words in ("our ACK left", "Data lost", "TIME_WAIT", "without a connection"):
        assert words not in text


def test_everything_has_words() -> None:
    assert set(FATES) == set(AckFate) - {AckFate.NONE}
    assert set(STRAYS) == set(Stray) - {Stray.NONE}


def never_accepted(**fields: object) -> Records:
    """Return a child whose listener was closed."""
    flags = ConnFlag.OPENED_PASSIVE
    return b.aborted(flags=flags, close_actor_file_ref=FileRef.NONE, closer__flags=0, **fields)


def test_an_accept_of_what_was_never_accepted_contradicts() -> None:
    accepted = ActorFlag.VALID | ActorFlag.ACCEPTED
    children = [never_accepted(), never_accepted(opener__flags=accepted), b.accepted(5)]
    assert b.reason_of(children[1]) == Reason.LISTENER_CLOSED
    assert snapshot_of(*children).contradicted == 1
    assert "contradict each other about 1 close:" in text_of(snapshot_of(*children))


CHANGES = [5, 0, 0, 1, 2, 3, 4, 0]


def test_what_became_of_time_wait_is_told_where_it_is_known() -> None:
    assert snapshot_of(b.active()).time_wait_changes is None
    known = snapshot_of(b.active(), time_waits=CHANGES)
    assert known.time_wait_changes == dict(zip(TimeWaitChange, CHANGES, strict=True))
    assert (
        "TIME_WAIT of the whole host: 5 entered by the peer's late FIN, 1 ended by a RST, "
        "2 ended by a SYN, 3 ended by data before the peer's FIN, 4 taken over by connect()."
    ) in text_of(known)


@pytest.mark.parametrize(("resets", "unseen"), [(0, 0), (5, 0), (6, 1)])
def test_a_rst_from_time_wait_that_no_hook_saw_is_told(resets: int, unseen: int) -> None:
    strays = [[1, 80, Stray.TIME_WAIT, 9, resets], [1, 81, Stray.NO_SOCKET, 1, 50]]
    snapshot = snapshot_of(b.active(), time_waits=CHANGES, strays=strays)
    assert snapshot.resets_unseen == unseen
    assert ("missed what led to" in text_of(snapshot)) == bool(unseen)
    assert snapshot_of(b.active(), strays=strays).resets_unseen == 0


def test_every_change_has_its_words() -> None:
    assert list(CHANGES_WORDS) == list(TimeWaitChange)
