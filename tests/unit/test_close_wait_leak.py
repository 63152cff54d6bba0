# SPDX-License-Identifier: Apache-2.0
"""CLOSE_WAIT judged: every verdict, from one look and from several."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest

from tests.unit import censuses as c
from tracer.census import SocketFlag
from tracer.detectors.close_wait_history import CloseWaitHistory, When
from tracer.detectors.close_wait_leak import CloseWaitLeak
from tracer.detectors.close_wait_verdict import Reason, Use, Verdict
from tracer.detectors.close_wait_why import SENTENCES
from tracer.detectors.finding import Severity
from tracer.tcp import TcpState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tracer.census import Census, Rows
    from tracer.detectors.close_wait_leak import CloseWaitFinding


NS_PER_S: Final = 1_000_000_000


def rows(
    ages_s: Sequence[float], make: Callable[..., Rows] = c.close_wait, **fields: object
) -> Rows:
    return np.concatenate([make(age, **fields) for age in ages_s])


def taken(at_s: float, sockets: Rows, *, pid: int = 100, **facts: Any) -> Census:
    """Return a census of sockets that one process holds, and its listener."""
    listener = c.listener()
    return c.census(
        at_s,
        [sockets, listener],
        [c.held_by(sockets, pid), c.held_by(listener, pid)],
        processes={pid: c.process(**facts)},
    )


def only(census: Census, detector: CloseWaitLeak | None = None) -> CloseWaitFinding:
    (finding,) = (detector or CloseWaitLeak()).look(census).findings
    return finding


def watched(*looks: Rows, every_s: float = 10, **facts: Any) -> CloseWaitFinding:
    """Return the finding after several looks."""
    detector = CloseWaitLeak()
    censuses = [taken(i * every_s, sockets, **facts) for i, sockets in enumerate(looks)]
    for census in censuses[:-1]:
        detector.look(census)
    return only(censuses[-1], detector)


def line(first: int, last: int, at_s: int, make: Callable[..., Rows] = c.close_wait) -> Rows:
    """Return sockets of a line: one a second grows old, the one numbered 0 at the first look."""
    sockets = rows([10.0 + at_s - number for number in range(first, last)], make)
    sockets["cookie"] = sockets["ino"] = np.arange(first, last) + 1_000
    return sockets


# --- one look ------------------------------------------------------------------------------------


def test_read_to_the_end_and_still_coming_is_a_leak() -> None:
    """One look is enough: sockets of every age, all read to the end."""
    finding = only(taken(0, rows(list(range(12, 612, 3)))))
    assert finding.verdict == Verdict.LEAK
    assert not finding.settled
    assert finding.evidence.count == 200
    assert finding.evidence.eof_read == 200
    assert finding.evidence.per_minute == pytest.approx(20, abs=1)
    assert finding.place.lport == 80
    assert finding.unit == "server.service"
    assert [(h.pid, h.comm) for h in finding.holders] == [(100, "server")]


def test_growth_tells_when_descriptors_run_out() -> None:
    """100 of 1024 are open and 60 a minute come: 15 minutes are left, and that is critical."""
    finding = only(taken(0, rows([10.5 + i for i in range(120)])))
    assert finding.evidence.per_minute == pytest.approx(60, abs=1)
    assert finding.nofile_reached_s == pytest.approx(924, rel=0.03)
    assert finding.nofile_share == pytest.approx(120 / 1024)
    assert finding.severity == Severity.CRITICAL


def test_unread_data_of_a_service_is_a_leak() -> None:
    finding = only(taken(0, rows([600, 700, 800], unread=5_001)))
    assert finding.verdict == Verdict.LEAK
    assert finding.evidence.data_pending == 3
    assert finding.evidence.unread_bytes == 15_000
    assert "nobody reads" in finding.why


def test_idle_outbound_connections_are_a_pool() -> None:
    """The peer closed twenty at once, long ago; nobody looked at them since."""
    finding = only(taken(0, rows([300 + i / 10 for i in range(20)], c.outbound)))
    assert finding.verdict == Verdict.IDLE_POOL
    assert finding.severity == Severity.OK
    assert (finding.place.raddr, finding.place.rport) == ("10.0.0.9", 5432)
    assert finding.place.lport is None


def test_goodbye_of_tls_before_the_end_is_no_answer() -> None:
    """A close_notify waits unread in an idle pool of TLS connections: still a pool."""
    idle = rows([300 + i / 10 for i in range(20)], c.outbound, unread=25)
    assert only(taken(0, idle)).verdict == Verdict.IDLE_POOL


def test_what_a_service_did_not_read_is_a_request() -> None:
    """However short; and what grows unread is to be read, not to be closed."""
    finding = only(taken(0, rows([11 + i for i in range(9)], unread=101)))
    assert (finding.evidence.eof_pending, finding.evidence.data_pending) == (0, 9)
    assert "with 900 bytes unread" in finding.why
    assert "keeps the process from reading" in finding.advice
    finding = only(taken(0, rows([11 + i for i in range(9)])))
    assert finding.advice.startswith("Close the socket on every path")


def test_one_look_does_not_tell_leak_from_pool() -> None:
    """Outbound, not looked at, still coming: it says so, and how to find out."""
    finding = only(taken(0, rows([12.0 + 9 * i for i in range(10)], c.outbound)))
    assert finding.verdict == Verdict.UNSETTLED
    assert "--over" in finding.advice


def test_waiting_in_the_accept_queue_is_the_listeners() -> None:
    """Nobody holds it yet; the one who is to accept it is named."""
    queued = rows([60, 70], ino=0, flags=0, unread=1)
    listener = c.listener()
    census = c.census(0, [queued, listener], [c.held_by(listener, 7, comm=b"slow")])
    finding = only(census)
    assert finding.verdict == Verdict.ACCEPT_QUEUE
    assert finding.settled
    assert [h.comm for h in finding.holders] == ["slow"]
    assert finding.nofile_share is None  # it takes no descriptor yet


def test_accept_queue_of_the_bound_address() -> None:
    """Of two listeners on one port, the one bound to the very address is asked."""
    queued = rows([60], ino=0, flags=0)
    wide, bound = c.listener(), c.listener(laddr="10.0.0.1")
    owners = [c.held_by(wide, 7, comm=b"wide"), c.held_by(bound, 8, comm=b"bound")]
    finding = only(c.census(0, [queued, wide, bound], owners))
    assert [h.comm for h in finding.holders] == ["bound"]


def test_waiting_to_be_sent_is_in_use() -> None:
    finding = only(taken(0, rows([60], unacked=3)))
    assert finding.verdict == Verdict.HALF_CLOSE
    assert finding.severity == Severity.OK


def test_young_ones_are_counted_only() -> None:
    """Twelve sockets, all younger than the limit: no finding, and the report says how many."""
    report = CloseWaitLeak().look(taken(0, rows([1.0] * 12)))
    assert report.findings == ()
    assert (report.sockets, report.younger) == (12, 12)


def test_other_states_are_none_of_it() -> None:
    sockets = rows([60], state=TcpState.FIN_WAIT2)
    assert CloseWaitLeak().look(taken(0, sockets)).sockets == 0


# --- several looks -------------------------------------------------------------------------------


def test_growing_while_watched_is_a_settled_leak() -> None:
    looks = [line(-19, 1 + at_s, at_s, c.outbound) for at_s in (0, 10, 20, 30)]
    finding = watched(*looks)
    assert finding.verdict == Verdict.LEAK
    assert finding.settled
    assert finding.evidence.per_minute == pytest.approx(60)
    assert "30 came and none left in 30 s" in finding.why


def test_bounded_outbound_is_a_pool_when_watched() -> None:
    pool = rows([30.0 + 9 * i for i in range(10)], c.outbound)
    finding = watched(*(c.older(pool, 10 * look) for look in range(4)))
    assert finding.verdict == Verdict.IDLE_POOL
    assert finding.settled
    assert finding.evidence.per_minute == 0


def test_bounded_but_read_to_the_end_is_forgotten() -> None:
    kept = rows([30.0, 40.0, 50.0])
    finding = watched(*(c.older(kept, 10 * look) for look in range(4)))
    assert finding.verdict == Verdict.LEAK
    assert finding.severity == Severity.NOTICE
    assert "read to the end and kept" in finding.why


def test_bounded_inbound_never_read() -> None:
    kept = rows([30.0, 40.0, 50.0], unread=1)
    finding = watched(*(c.older(kept, 10 * look) for look in range(4)))
    assert finding.verdict == Verdict.LEAK
    assert "process from reading" in finding.advice


def test_falling_at_once_awaits_the_collector() -> None:
    """It grows to forty, thirty-six leave between two looks, and it grows again."""
    first = rows([15.0 + i for i in range(20)])
    more = np.concatenate([c.older(first, 10), rows([15.0 + i / 2 for i in range(20)])])
    after = c.older(more[-4:], 10)
    finding = watched(first, more, after, np.concatenate([c.older(after, 10), rows([11.0, 12.0])]))
    assert finding.verdict == Verdict.AWAITS_GC
    assert "36 of 40 were closed at once" in finding.why


def test_leaving_one_by_one_is_late() -> None:
    """As many leave as come, none stays: the service closes, but late."""
    looks = [line(at_s - 11, 1 + at_s, at_s) for at_s in (0, 3, 6, 9, 12)]
    finding = watched(*looks, every_s=3)
    assert finding.verdict == Verdict.LATE_CLOSE
    assert finding.evidence.count == 12


def test_leak_beside_some_that_are_closed_is_a_leak() -> None:
    """One of ten leaves: what grows is still a leak."""
    looks = [line(-19 + at_s // 10, 1 + at_s, at_s) for at_s in (0, 10, 20, 30)]
    assert watched(*looks).verdict == Verdict.LEAK


def test_sending_after_the_end_is_a_half_close() -> None:
    """In CLOSE_WAIT for twenty seconds by what was seen, sent one second ago: in use."""
    first = rows([0.5])
    later = first.copy()
    finding = watched(first, later, later)
    assert finding.verdict == Verdict.HALF_CLOSE
    assert finding.evidence.use == Use.SENDING
    assert finding.evidence.oldest_ms == 19_999


def test_answered_and_then_forgotten_is_a_leak() -> None:
    """Having sent once, long ago, is no excuse."""
    first = rows([0.5])
    detector = CloseWaitLeak()
    for at_s in (0, 10, 100):
        age_s = max(0.5, at_s - 15)
        kept = first.copy()
        for name in ("age_received_ms", "age_data_received_ms", "age_sent_ms"):
            kept[name] = int(age_s * 1000)
        finding = detector.look(taken(at_s, kept)).findings
    assert [f.verdict for f in finding] == [Verdict.LEAK]


def test_age_is_bounded_from_above_by_the_look_before() -> None:
    """First seen ten seconds after a look that had it not: not older than twenty now."""
    known = rows([60.0])
    fresh = rows([2.0])
    later = np.concatenate([c.older(known, 10), fresh])
    last = c.older(later, 10)
    last[-1:]["rport"] += 1
    detector = CloseWaitLeak()
    for at_s, sockets in ((0, known), (10, later), (20, last)):
        sockets["raddr"][0] = c.packed("10.0.0.7")
        sockets["lport"][:1] = 81  # another destination than the fresh one's
        findings = detector.look(taken(at_s, sockets)).findings
    ages = {f.place.lport: (f.evidence.oldest_ms, f.evidence.oldest_at_most_ms) for f in findings}
    assert ages == {None: (80_000, None), 80: (12_000, 20_001)}


def test_age_is_exact_where_the_connection_was_followed() -> None:
    """However lately an acknowledgement was heard, and at the first look."""
    sockets = rows([3.0, 3.0, 3.0])
    sockets["close_wait_ns"] = c.census().mono_ns - 75 * NS_PER_S
    evidence = only(taken(0, sockets)).evidence
    assert (evidence.oldest_ms, evidence.oldest_at_most_ms) == (75_000, 75_000)


def test_one_that_was_not_followed_leaves_the_group_a_bound() -> None:
    """The oldest may be the one nobody knows of."""
    sockets = rows([30.0, 20.0])
    sockets["close_wait_ns"][0] = c.census().mono_ns - 40 * NS_PER_S
    evidence = only(taken(0, sockets)).evidence
    assert (evidence.oldest_ms, evidence.oldest_at_most_ms) == (40_000, None)


def test_cookies_that_are_unknown_join_nothing() -> None:
    """Without a cookie a socket is new at every look, and nothing is made of it."""
    kept = rows([30.0, 40.0], cookie=0)
    finding = watched(*(c.older(kept, 10 * look) for look in range(4)))
    assert finding.verdict == Verdict.LEAK
    assert finding.evidence.trend is not None
    assert (finding.evidence.trend.entered, finding.evidence.trend.left) == (0, 0)


# --- groups --------------------------------------------------------------------------------------


def test_holders_of_a_shared_socket_are_all_told() -> None:
    """Forked workers share their parent's sockets: one group, every holder."""
    shared, own = rows([60, 61]), rows([60])
    census = c.census(
        0,
        [shared, own, c.listener()],
        [c.held_by(shared, *range(200, 220)), c.held_by(own, 201)],
    )
    found = CloseWaitLeak().look(census).findings
    assert [(f.evidence.count, f.holder_count) for f in found] == [(2, 20), (1, 1)]
    assert [h.pid for h in found[0].holders] == list(range(200, 208))


def test_a_duplicated_descriptor_is_one_holder() -> None:
    sockets = rows([60])
    owners = np.concatenate([c.held_by(sockets, 5), c.held_by(sockets, 5)])
    finding = only(c.census(0, [sockets, c.listener()], [owners]))
    assert finding.holder_count == 1


def test_nobody_holds_it() -> None:
    """A descriptor in flight, or owners not asked for: no holder is invented."""
    finding = only(c.census(0, [rows([60]), c.listener()]))
    assert finding.holders == ()
    assert finding.unit is None


def test_groups_by_process_service_destination_and_namespace() -> None:
    kinds = [
        rows([60], lport=80),
        rows([60], lport=81),
        rows([60], lport=80, netns=2),
        rows([60], c.outbound),
        rows([60], c.outbound, raddr="2001:db8::1", family=6),
    ]
    listeners = [c.listener(80), c.listener(81), c.listener(80, netns=2)]
    found = CloseWaitLeak().look(c.census(0, [*kinds, *listeners])).findings
    places = {(f.place.netns, f.place.lport, f.place.raddr) for f in found}
    assert places == {
        (1, 80, None), (1, 81, None), (2, 80, None),
        (1, None, "10.0.0.9"), (1, None, "2001:db8::1"),
    }  # fmt: skip


def test_peers_of_a_service_are_summed_up() -> None:
    many = np.concatenate([
        rows([60] * (i + 1), raddr=f"10.1.0.{i}") for i in range(9)
    ])  # fmt: skip
    place = only(taken(0, many)).place
    assert place.peer_count == 9
    assert [(p.addr, p.count) for p in place.peers][:2] == [("10.1.0.8", 9), ("10.1.0.7", 8)]


def test_more_groups_than_are_judged_are_counted() -> None:
    many = np.concatenate([rows([60], c.outbound, rport=port) for port in range(1, 1_011)])
    report = CloseWaitLeak().look(c.census(0, [many]))
    assert (len(report.findings), report.groups_left_out) == (1_000, 10)


def test_name_of_a_process_is_harmless() -> None:
    sockets = rows([60])
    census = c.census(0, [sockets], [c.held_by(sockets, 5, comm=b"\x1b[31mevil\n")])
    (holder,) = only(census).holders
    assert holder.comm == "\\x1b[31mevil\\n"


# --- the past is bounded -------------------------------------------------------------------------


def test_history_forgets_groups_that_are_gone() -> None:
    history = CloseWaitHistory()
    cookies = np.array([1], np.uint64)
    history.remember(When(1, 2), cookies, np.zeros(1, np.int64), ["a"])
    for look in range(2, 200):
        history.remember(When(look, look), cookies[:0], np.zeros(0, np.int64), [])
    assert history.trend("a") is None
    assert not history._series


def test_every_reason_has_a_sentence() -> None:
    assert set(SENTENCES) == set(Reason)


@pytest.mark.parametrize("reason", Reason)
def test_sentences_hold_without_a_past(reason: Reason) -> None:
    """No sentence fails for want of a figure."""
    evidence = replace(only(taken(0, rows([60]))).evidence, trend=None)
    assert SENTENCES[reason](evidence).endswith((".", ";"))


def test_orphans_and_flags() -> None:
    """An orphan is not in an accept queue."""
    finding = only(taken(0, rows([60], flags=SocketFlag.DEAD)))
    assert finding.evidence.use == Use.HELD


def test_a_burst_at_the_start_is_not_growth() -> None:
    """All came while the first looks were taken; since then none did."""
    kept = rows([9.0 + i / 100 for i in range(23)], c.outbound)
    finding = watched(*(c.older(kept, 10 * look) for look in range(4)))
    assert finding.verdict == Verdict.IDLE_POOL
    assert finding.evidence.per_minute == 0
    assert "it does not go on" in finding.why


@pytest.mark.parametrize("looks", [1, 4])
def test_outbound_read_to_the_end_is_forgotten_however_bounded(looks: int) -> None:
    """Whoever has met the end and keeps the socket is no idle pool."""
    kept = rows([300 + i / 10 for i in range(20)], c.outbound, unread=0)
    finding = watched(*(c.older(kept, 10 * look) for look in range(looks)))
    assert finding.verdict == Verdict.LEAK
    assert finding.severity == Severity.NOTICE


def test_arriving_in_bursts_is_arriving() -> None:
    """Twenty every minute for an hour, the last of them half a minute ago: not a pool."""
    bursts = [40 + 60 * minute + i / 100 for minute in range(60) for i in range(20)]
    finding = only(taken(0, rows(bursts, c.outbound)))
    assert finding.verdict == Verdict.UNSETTLED
