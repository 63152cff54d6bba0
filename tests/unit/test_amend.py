# SPDX-License-Identifier: Apache-2.0
"""Late RST reports find their close, and nothing waits longer than it must."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tracer.amend import HOLD_NS, Amender
from tracer.tcp import ConnFlag, RecordType, RstFlag
from tracer.waiting import ROOM_MIN, Waiting
from tracer.wire import CLOSE_DTYPE

if TYPE_CHECKING:
    from tracer.wire import Records

T0 = 10**9


def closes(count: int, *, may_follow: bool = False, first_cookie: int = 100) -> Records:
    made = np.zeros(count, CLOSE_DTYPE)
    made["type"] = RecordType.CLOSE
    made["flags"] = ConnFlag.MAY_FOLLOW if may_follow else 0
    made["cookie"] = first_cookie + np.arange(count)
    made["closed_ns"] = T0 + np.arange(count)
    return made


def resets(of: Records) -> Records:
    made = np.zeros(len(of), CLOSE_DTYPE)
    made["type"] = RecordType.RESET
    made["cookie"] = of["cookie"]
    made["rst_flags"] = RstFlag.SENT_ACTIVE
    made["closed_ns"] = made["rst_sent_ns"] = of["closed_ns"] + 5
    made["rst_reason"] = 11
    return made


def test_ordinary_closes_pass_untouched() -> None:
    """The common case returns the very array that came in."""
    batch = closes(23)
    assert Amender().feed(batch, T0) is batch


def test_amendment_in_the_same_batch() -> None:
    """Close and RST of one drain leave as one amended close."""
    held = closes(5, may_follow=True)
    out = Amender().feed(np.concatenate((held, resets(held)[::-1])), T0 + 100)
    assert out["cookie"].tolist() == held["cookie"].tolist()
    assert (out["rst_sent_ns"] == held["closed_ns"] + 5).all()
    assert (out["rst_flags"] == RstFlag.SENT_ACTIVE).all()
    assert (out["rst_reason"] == 11).all()


def test_amendment_in_the_next_batch() -> None:
    """What may be amended waits, the rest does not."""
    amender = Amender()
    held, other = closes(3, may_follow=True), closes(4, first_cookie=900)
    first = amender.feed(np.concatenate((held, other)), T0 + 100)
    assert first["cookie"].tolist() == other["cookie"].tolist()
    second = amender.feed(resets(held[:1]), T0 + 200)
    assert second["cookie"].tolist() == [100]
    assert len(amender.flush()) == 2


def test_nobody_waits_longer_than_hold() -> None:
    """After HOLD_NS of batch time the close leaves unamended."""
    amender = Amender()
    assert len(amender.feed(closes(1, may_follow=True), T0)) == 0
    assert len(amender.feed(closes(0), T0 + HOLD_NS - 1)) == 0
    assert len(amender.feed(closes(0), T0 + HOLD_NS)) == 1
    assert len(amender.flush()) == 0


def test_what_was_read_late_waits_for_one_more_look() -> None:
    """The ring with the report was read before the report was there, and then all took long."""
    amender = Amender()
    held, late = closes(2, may_follow=True), T0 + 10 * HOLD_NS
    assert len(amender.feed(held, late)) == 0
    assert len(amender.feed(closes(0), late)) == 0
    out = amender.feed(resets(held[:1]), late + 1)
    assert out["cookie"].tolist() == [100, 101]
    assert out["rst_flags"].tolist() == [RstFlag.SENT_ACTIVE, 0]


def test_rings_of_one_look_are_one_batch_in_several() -> None:
    """The report is read late, from the ring before that of its close."""
    amender = Amender()
    held, late = closes(1, may_follow=True), T0 + 10 * HOLD_NS
    assert len(amender.feed(resets(held), late)) == 0
    assert amender.feed(held, late)["rst_flags"].tolist() == [RstFlag.SENT_ACTIVE]
    assert amender.unmatched == 0


def test_another_close_of_the_same_socket() -> None:
    """A socket that was connected again: each report amends the last close before it."""
    amender = Amender()
    twice = np.concatenate((closes(1, may_follow=True), closes(1, may_follow=True)))
    twice["closed_ns"] = [T0, T0 + 100]
    reports = resets(twice)
    reports["rst_reason"] = [11, 14]
    out = amender.feed(np.concatenate((twice, reports)), T0 + 200)
    assert out["rst_reason"].tolist() == [11, 14]


def test_report_older_than_the_close() -> None:
    """A report of before the CLOSE belongs to another one, and is counted."""
    amender = Amender()
    held = closes(1, may_follow=True)
    stray = resets(held)
    stray["closed_ns"] = held["closed_ns"] - 1
    assert len(amender.feed(np.concatenate((held, stray)), T0 + 2 * HOLD_NS)) == 0
    out = amender.feed(closes(0), T0 + 3 * HOLD_NS)
    assert out["rst_flags"].tolist() == [0]
    assert amender.unmatched == 1


def test_report_without_any_close() -> None:
    """A report that matches nothing yields nothing, and is counted when its time is over."""
    amender = Amender()
    assert len(amender.feed(resets(closes(2)), T0)) == 0
    assert amender.unmatched == 0
    assert len(amender.feed(closes(1, first_cookie=900), T0 + 2 * HOLD_NS)) == 1
    assert amender.unmatched == 2


def test_report_may_come_before_its_close() -> None:
    """Another CPU's ring is read first: the report waits for the close of the next batch."""
    amender = Amender()
    held = closes(3, may_follow=True)
    assert len(amender.feed(resets(held), T0 + 10)) == 0
    out = amender.feed(held, T0 + 5 * HOLD_NS)
    assert (out["rst_flags"] == RstFlag.SENT_ACTIVE).all()
    assert len(out) == 3
    assert amender.unmatched == 0


def test_first_of_two_resets_counts() -> None:
    """Several RSTs may follow one close: the first one tells why, all tell how."""
    held = closes(1, may_follow=True)
    later = resets(held)
    later["rst_sent_ns"] += 1000
    later["closed_ns"] += 1000
    later["rst_flags"] = RstFlag.SENT_REPLY
    out = Amender().feed(np.concatenate((held, resets(held), later)), T0)
    assert out["rst_sent_ns"].tolist() == [T0 + 5]
    assert out["rst_flags"].tolist() == [RstFlag.SENT_ACTIVE | RstFlag.SENT_REPLY]


def test_sigpipe_is_a_report_too() -> None:
    """It adds one flag, and nothing is missing where none comes or its close is gone."""
    amender, held = Amender(), closes(2, may_follow=True)
    sigpipe = resets(held[:1])
    sigpipe["type"], sigpipe["flags"] = RecordType.SIGPIPE, ConnFlag.SIGPIPE
    for name in ("rst_flags", "rst_sent_ns", "rst_reason"):
        sigpipe[name] = 0
    amender.feed(held, T0)
    out = amender.feed(sigpipe, T0 + 100)
    assert out["cookie"].tolist() == [100]
    assert out["flags"].tolist() == [ConnFlag.MAY_FOLLOW | ConnFlag.SIGPIPE]
    assert (int(out["rst_flags"][0]), int(out["rst_sent_ns"][0])) == (0, 0)
    assert len(amender.feed(sigpipe, T0 + 200)) == 0
    assert amender.flush()["cookie"].tolist() == [101]
    assert amender.unmatched == 0


@pytest.mark.parametrize("seed", range(5))
def test_every_close_leaves_once_and_as_it_came(seed: int) -> None:
    """Batches of any size, reports late or early: nothing but the report's fields changes."""
    rng = np.random.default_rng(seed)
    came = closes(2_000)
    came["closed_ns"] = T0 + np.arange(len(came)) * 100_000
    came["flags"] = np.where(rng.random(len(came)) < 0.7, ConnFlag.MAY_FOLLOW, 0)
    came["saddr"] = rng.integers(0, 256, came["saddr"].shape)
    reports = resets(came[(came["flags"] != 0) & (rng.random(len(came)) < 0.3)])
    stream = np.concatenate((came, reports))
    # Both rings are read within a few milliseconds: that far a report may be from its close.
    seen_ns = stream["closed_ns"] + rng.integers(0, HOLD_NS // 4, len(stream)).astype(np.uint64)
    order = np.argsort(seen_ns)
    stream, seen_ns = stream[order], seen_ns[order]
    amender, left = Amender(), []
    ends = np.sort(rng.choice(len(stream), 60, replace=False))
    for part, times in zip(np.split(stream, ends), np.split(seen_ns, ends), strict=True):
        if len(part):
            left.append(amender.feed(part.copy(), int(times[-1])))
    left.append(amender.flush())
    out = np.concatenate(left)
    out = out[np.argsort(out["cookie"])]
    reset = np.isin(came["cookie"], reports["cookie"])
    assert (out["rst_flags"] != 0).tolist() == reset.tolist()
    assert amender.unmatched == 0
    for name in ("rst_flags", "rst_sent_ns", "rst_reason"):
        out[name] = 0
    assert out.tobytes() == came.tobytes()


def test_what_waits_was_copied() -> None:
    """A batch may lie in memory that its source uses again."""
    amender, batch = Amender(), closes(3, may_follow=True)
    amender.feed(batch, T0)
    batch["cookie"] = 0
    assert amender.flush()["cookie"].tolist() == [100, 101, 102]


def test_order_of_arrival_is_kept() -> None:
    """However many waited, and whoever left in between."""
    amender = Amender()
    crowd = closes(3_000, may_follow=True)
    amender.feed(crowd, T0)
    gone = amender.feed(resets(crowd[1::2]), T0 + 1)
    assert gone["cookie"].tolist() == crowd["cookie"][1::2].tolist()
    amender.feed(closes(100, may_follow=True, first_cookie=9_000), T0 + 2)
    expected = [*crowd["cookie"][::2].tolist(), *range(9_000, 9_100)]
    assert amender.flush()["cookie"].tolist() == expected


def test_room_is_given_back() -> None:
    """A crowd that waited leaves no memory behind."""
    waiting = Waiting()
    for count in (50_000, 10):
        crowd = closes(count)
        waiting.add(crowd, np.ones(count, np.bool_), T0)
        assert waiting.release_all().tobytes() == crowd.tobytes()
    assert len(waiting.records) == ROOM_MIN
