# SPDX-License-Identifier: Apache-2.0
"""The judge of captures, on packets made by hand."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import dpkt  # type: ignore[import-untyped]
import pytest

from tests.truth.compare import compare
from tests.truth.judge import Truth, judge_all
from tests.truth.packets import connections, read_segments

if TYPE_CHECKING:
    from pathlib import Path

    from tests.truth.compare import Record

CLIENT, SERVER = ("10.0.0.1", 40000), ("10.0.0.2", 80)
FLAGS = {"S": 2, "A": 16, "F": 1, "R": 4, "P": 8}
MSS_OPTION = b"\x02\x04\x05\xb4"
OPENING = ("c S 0 0", "s SA 0 1", "c A 1 1")
# The client asks 4 bytes, the server answers 6.
TALK = (*OPENING, "c PA 1 1 4", "s PA 1 5 6", "c A 5 7")


class Script:
    """Turns lines `c|s FLAGS seq ack [payload]`, numbers relative, into a capture file."""

    def __init__(
        self, path: Path, isns: tuple[int, int] = (1000, 2**32 - 3), step_s: float = 0.001
    ) -> None:
        """The server's numbers wrap by default."""
        self._path, self._isns = path, dict(zip("cs", isns, strict=True))
        self._step_s = step_s
        self._time_s = 0.0

    def write(self, lines: tuple[str, ...]) -> Path:
        """Write all lines as raw IPv4 packets."""
        with self._path.open("wb") as file:
            writer = dpkt.pcap.Writer(file, linktype=dpkt.pcap.DLT_RAW)
            for line in lines:
                self._time_s += self._step_s
                writer.writepkt(self._packet(line), ts=self._time_s)
        return self._path

    def _packet(self, line: str) -> bytes:
        who, letters, seq, ack, payload = [*line.split(), "0"][:5]
        source, target = (CLIENT, SERVER) if who == "c" else (SERVER, CLIENT)
        flags = sum(FLAGS[letter] for letter in letters)
        peer = "s" if who == "c" else "c"
        # An absolute number is written with a bang: the RST of no socket has 0.
        number = 0 if seq == "!0" else self._isns[who] + int(seq)
        tcp = dpkt.tcp.TCP(
            sport=source[1],
            dport=target[1],
            seq=number % 2**32,
            ack=(self._isns[peer] + int(ack)) % 2**32 if flags & FLAGS["A"] else 0,
            flags=flags,
            data=b"x" * int(payload),
        )
        if flags & FLAGS["S"]:
            tcp.opts = MSS_OPTION
            tcp.off = 6
        packet = dpkt.ip.IP(src=_pack(source), dst=_pack(target), p=6, data=tcp)
        packet.len = len(packet)
        return bytes(packet)


def _pack(address: tuple[str, int]) -> bytes:
    return socket.inet_aton(address[0])


@pytest.fixture
def judged(tmp_path: Path) -> Judged:
    """Return a function from script lines to the truths of both ends."""
    return Judged(tmp_path / "made.pcap")


class Judged:
    """Callable fixture: lines in, {"c": truth, "s": truth} out."""

    def __init__(self, path: Path) -> None:
        """Note where captures go."""
        self._path = path

    def __call__(self, *lines: str, step_s: float = 0.001) -> dict[str, Truth]:
        """Judge one scripted connection."""
        script = Script(self._path, step_s=step_s)
        truths = judge_all(connections(read_segments(script.write(lines))))
        return {"c" if truth.local == CLIENT else "s": truth for truth in truths}


def verdict(truth: Truth) -> tuple[str, object, object]:
    """Return (kind, handshake, fin_ack) of an end that has one ending."""
    (ending,) = truth.endings
    (handshake,), (fin_ack,) = ending.handshake, ending.fin_ack
    return ending.kind, handshake, fin_ack


def kinds(truth: Truth) -> set[str]:
    """Return every acceptable kind."""
    return {ending.kind for ending in truth.endings}


def test_three_way(judged: Judged) -> None:
    ends = judged(*TALK, "c FA 5 7", "s FA 7 6", "c A 6 8")
    assert verdict(ends["c"]) == ("active", "three_way", "fin")
    assert verdict(ends["s"]) == ("passive", "three_way", "fin")


def test_opened_addresses_and_bytes(judged: Judged) -> None:
    ends = judged(*TALK, "c FA 5 7", "s FA 7 6", "c A 6 8")
    client = ends["c"]
    assert client.key == (4, "10.0.0.1", 40000, "10.0.0.2", 80)
    assert (client.opened, ends["s"].opened) == ("active", "passive")
    assert (client.tx_bytes, client.rx_bytes) == (4, range(6, 7))
    assert (ends["s"].tx_bytes, ends["s"].rx_bytes) == (6, range(4, 5))


def test_time_wait_belongs_to_who_closed_first(judged: Judged) -> None:
    ends = judged(*TALK, "s FA 7 5", "c FA 5 8", "s A 8 6")
    assert [ends[who].endings[0].time_wait for who in "cs"] == [False, True]


def test_four_way_with_a_pure_ack(judged: Judged) -> None:
    ends = judged(*TALK, "c FA 5 7", "s A 7 6", "s FA 7 6", "c A 6 8")
    assert verdict(ends["c"]) == ("active", "four_way", "pure")
    assert verdict(ends["s"]) == ("passive", "four_way", "pure")


def test_an_ack_overtaken_by_the_fin_leaves_both_open(judged: Judged) -> None:
    ends = judged(*TALK, "c FA 5 7", "s FA 7 6", "c A 6 8", "s A 7 6", "c R 6 0")
    for who in "cs":
        (ending,) = ends[who].endings
        assert ending.handshake == {"three_way", "four_way"}
        assert ending.fin_ack == {"fin", "pure"}


def test_four_way_with_the_ack_on_data(judged: Judged) -> None:
    ends = judged(*TALK, "c FA 5 7", "s PA 7 6 3", "c A 6 10", "s FA 10 6", "c A 6 11")
    assert verdict(ends["s"]) == ("passive", "four_way", "data")


def test_last_words_in_the_fin_segment_are_three_way(judged: Judged) -> None:
    ends = judged(*TALK, "c FA 5 7", "s FPA 7 6 3", "c A 6 11")
    assert verdict(ends["c"]) == ("active", "three_way", "fin")
    assert ends["s"].tx_bytes == 9


def test_more_than_one_segment_of_last_words_is_four_way(judged: Judged) -> None:
    ends = judged(*TALK, "c FA 5 7", "s FPA 7 6 3000", "c A 6 3008")
    assert verdict(ends["c"]) == ("active", "four_way", "data")


def test_a_bare_ack_overtaken_by_data_leaves_both_open(judged: Judged) -> None:
    ends = judged(*TALK, "c FA 5 7", "s PA 7 6 3", "s A 7 6", "c A 6 10", "s FA 10 6", "c A 6 11")
    assert ends["s"].endings[0].fin_ack == {"data", "pure"}
    assert ends["s"].endings[0].handshake == {"four_way"}


def test_a_fin_that_waited_may_leave_time_wait_on_both_sides(judged: Judged) -> None:
    """Data that was queued before the FIN left after the peer's FIN had come."""
    ends = judged(*TALK, "c FA 5 7", "s A 7 6", "s FPA 7 6 9", "c A 6 17")
    assert ends["s"].endings[0].time_wait is None
    at_once = judged(*TALK, "c FA 5 7", "s A 7 6", "s FA 7 6", "c A 6 8")
    assert at_once["s"].endings[0].time_wait is False


@pytest.mark.parametrize(("step_s", "time_wait"), [(0.001, False), (0.0001, None)])
def test_a_fin_may_have_waited_in_its_own_hosts_queue(
    judged: Judged, step_s: float, time_wait: bool | None
) -> None:
    """Data had left a moment before, and the peer's FIN was acknowledged at once."""
    lines = ("c FA 5 7", "s A 7 6", "s FA 7 6", "c A 6 8")
    assert judged(*TALK, *lines, step_s=step_s)["s"].endings[0].time_wait is time_wait
    merged = ("c FA 5 7", "s FA 7 6", "c A 6 8")
    assert judged(*TALK, *merged, step_s=step_s)["s"].endings[0].time_wait is False


def test_a_refused_fin_crossed_for_one_side_only(judged: Judged) -> None:
    """The client has no room for the server's last data: it never takes the first FIN."""
    crossing = ("s FPA 7 5 9", "c A 5 7", "c FA 5 7", "s A 17 6", "c A 6 7", "s FPA 7 6 9")
    ends = judged(*TALK, *crossing, "c A 6 17")
    assert kinds(ends["c"]) == {"simultaneous", "active"}
    assert kinds(ends["s"]) == {"simultaneous"}


def test_a_refused_fin_carried_the_ack_all_the_same(judged: Judged) -> None:
    """The ACK in it is taken, the data and the FIN are not: they come again."""
    ends = judged(*TALK, "c FA 5 7", "s FPA 7 6 4", "c A 6 7", "s FPA 7 6 4", "c A 6 12")
    assert verdict(ends["c"]) == ("active", "three_way", "fin")


def test_data_in_the_syn_counts(judged: Judged) -> None:
    ends = judged("c S 0 0 5", "s SA 0 6", "c A 6 1", "c FA 6 1", "s FA 1 7", "c A 7 2")
    assert ends["c"].tx_bytes == 5
    assert ends["s"].rx_bytes == range(5, 6)


def test_a_reset_is_never_answered(judged: Judged) -> None:
    """So a RST right after the peer's answers the data before it: the data came first."""
    ends = judged(*TALK, "c FA 5 7", "s PA 7 6 3", "s RA 10 6", "c R 6 0")
    assert kinds(ends["c"]) == {"abort"}


def test_repeated_fin_counts_once(judged: Judged) -> None:
    ends = judged(*TALK, "c FA 5 7", "c FA 5 7", "s A 7 6", "s FA 7 6", "s FA 7 6", "c A 6 8")
    assert verdict(ends["c"]) == ("active", "four_way", "pure")


def test_crossing_fins(judged: Judged) -> None:
    ends = judged(*TALK, "c FA 5 7", "s FA 7 5", "s A 8 6", "c A 6 8", step_s=0.002)
    assert kinds(ends["c"]) == kinds(ends["s"]) == {"simultaneous"}
    assert ends["c"].endings[0].handshake == {"simultaneous"}


def test_crossing_fins_may_be_joined_with_the_ack_behind(judged: Judged) -> None:
    """The server acknowledged the client's FIN after the client's ACK had come: no CLOSING."""
    lines = ("c FA 5 7", "s FA 7 5", "c A 6 8", "s A 8 6")
    assert kinds(judged(*TALK, *lines, step_s=0.002)["s"]) == {
        "simultaneous"
    }  # too late to be joined
    ends = judged(*TALK, *lines, step_s=0.0001)
    assert kinds(ends["s"]) == {"simultaneous", "active"}
    assert kinds(ends["c"]) == {"simultaneous"}
    (joined,) = (one for one in ends["s"].endings if one.kind == "active")
    assert joined.handshake == frozenset({None})
    assert joined.time_wait


def test_order_in_the_capture_does_not_decide_who_was_first(judged: Judged) -> None:
    ends = judged(*TALK, "s FA 7 6", "c FA 5 7", "c A 6 8")
    assert kinds(ends["c"]) == {"active"}
    assert kinds(ends["s"]) == {"passive"}


def test_abort_and_reset(judged: Judged) -> None:
    ends = judged(*TALK, "s RA 7 5")
    assert kinds(ends["s"]) == {"abort"}
    assert kinds(ends["c"]) == {"reset"}
    assert ends["c"].endings[0].rst_received


def test_crossing_resets_are_two_aborts(judged: Judged) -> None:
    ends = judged(*TALK, "s RA 7 5", "c RA 5 7")
    assert kinds(ends["c"]) == kinds(ends["s"]) == {"abort"}


def test_answer_from_a_dead_socket_changes_nothing(judged: Judged) -> None:
    ends = judged(*TALK, "s RA 7 5", "c PA 5 7 3", "s R 7 0")
    assert kinds(ends["s"]) == {"abort"}
    assert kinds(ends["c"]) == {"reset"}


def test_reset_of_time_wait_keeps_the_graceful_verdict(judged: Judged) -> None:
    ends = judged(*TALK, "c FA 5 7", "s FA 7 6", "c A 6 8", "s R 8 0")
    assert kinds(ends["c"]) == {"active"}
    assert kinds(ends["s"]) == {"passive"}


def test_data_in_the_ack_of_the_fin_is_an_abort(judged: Judged) -> None:
    ends = judged(*TALK, "c FA 5 7", "s PA 7 6 3", "c R 6 0")
    assert kinds(ends["c"]) == {"abort"}
    assert kinds(ends["s"]) == {"reset"}


def test_data_after_the_fin_was_acknowledged_may_meet_a_mini_socket(judged: Judged) -> None:
    ends = judged(*TALK, "c FA 5 7", "s A 7 6", "s PA 7 6 3", "c R 6 0")
    assert kinds(ends["c"]) == {"abort", "active"}
    assert kinds(ends["s"]) == {"reset"}


def test_data_that_crosses_the_fin_is_an_abort(judged: Judged) -> None:
    ends = judged(*TALK, "c FA 5 7", "s PA 7 5 3", "c R 5 0")
    assert kinds(ends["c"]) == {"abort"}
    assert kinds(ends["s"]) == {"reset"}


def test_reset_in_close_wait(judged: Judged) -> None:
    ends = judged(*TALK, "c FA 5 7", "s RA 7 6")
    assert kinds(ends["c"]) == {"reset"}
    assert kinds(ends["s"]) == {"abort"}
    assert ends["c"].endings[0].handshake == {None}


def test_reset_outside_the_window_is_ignored(judged: Judged) -> None:
    ends = judged(*TALK, "s R 90000 0", "c FA 5 7", "s FA 7 6", "c A 6 8")
    assert kinds(ends["c"]) == {"active"}


def test_refused(judged: Judged) -> None:
    ends = judged("c S 0 0", "s RA !0 1")
    assert list(ends) == ["c"]
    assert kinds(ends["c"]) == {"refused"}


def test_a_handshake_that_is_taken_back_leaves_no_socket(judged: Judged) -> None:
    """The client was connected, and threw that away; the server had a request only."""
    ends = judged("c S 0 0", "s SA 0 1", "c RA 1 1")
    assert kinds(ends["c"]) == {"abort"}
    assert "s" not in ends


def test_unanswered_syn(judged: Judged) -> None:
    ends = judged("c S 0 0", "c S 0 0")
    assert kinds(ends["c"]) == {"attempt_failed", "timeout"}


def test_repeats_nobody_answers_may_be_a_timeout(judged: Judged) -> None:
    ends = judged(*TALK, "c PA 5 7 9", "c PA 5 7 9")
    assert kinds(ends["c"]) == {"timeout"}
    assert ends["c"].may_be_open
    assert ends["c"].unacked_bytes == 9


def test_reset_after_a_keepalive_probe_may_be_a_timeout(judged: Judged) -> None:
    ends = judged(*TALK, "c A 4 7", "c RA 5 7")
    assert kinds(ends["c"]) == {"abort", "timeout"}


def test_open_connection_has_no_ending(judged: Judged) -> None:
    ends = judged(*TALK)
    assert ends["c"].endings == ()
    assert ends["c"].may_be_open


def test_reused_ports_are_two_connections(tmp_path: Path) -> None:
    both = []
    for isns in ((1000, 5000), (90000, 95000)):
        path = Script(tmp_path / "one.pcap", isns).write((*TALK, "c FA 5 7", "s FA 7 6", "c A 6 8"))
        both += list(read_segments(path))
    assert len(connections(both)) == 2


def record(**changes: object) -> Record:
    """Return a record of the client of a three-way close, with changes."""
    whole: Record = {"at": "2024-01-01T00:00:00.000000000Z", "family": 4, "netns": 1}
    whole |= {"laddr": CLIENT[0], "lport": CLIENT[1], "raddr": SERVER[0], "rport": SERVER[1]}
    whole |= {"opened": "active", "kind": "active", "handshake": "three_way", "fin_ack": "fin"}
    whole |= {"time_wait": True, "timeline_us": {}, "tx_bytes": 4, "rx_bytes": 6}
    return whole | changes


THREE_WAY = (*TALK, "c FA 5 7", "s FA 7 6", "c A 6 8")


def test_compare_agrees(judged: Judged) -> None:
    report = compare([judged(*THREE_WAY)["c"]], [record()])
    assert report.right
    assert (report.agreed, report.undecided) == (1, [])


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "passive"},
        {"handshake": "four_way"},
        {"fin_ack": "pure"},
        {"opened": "passive"},
        {"time_wait": False},
        {"tx_bytes": 5},
        {"rx_bytes": 7},
        {"timeline_us": {"rst_sent": 1}},
    ],
)
def test_compare_names_the_field_that_differs(judged: Judged, change: Record) -> None:
    report = compare([judged(*THREE_WAY)["c"]], [record(**change)])
    ((_, _, fields),) = report.disagreed
    assert set(fields) == ({"rst_sent"} if "timeline_us" in change else set(change))
    assert "why" in report.text()


@pytest.mark.parametrize(
    "change", [{"handshake": None}, {"fin_ack": None}, {"kind": "unknown"}, {"time_wait": None}]
)
def test_compare_counts_the_undecided_on_their_own(judged: Judged, change: Record) -> None:
    report = compare([judged(*THREE_WAY)["c"]], [record(**change)])
    assert not report.disagreed
    assert len(report.undecided) == 1


def test_compare_accounts_for_every_close(judged: Judged) -> None:
    ends = judged(*THREE_WAY)
    report = compare(ends.values(), [record(), record(lport=1)])
    assert [truth.key for truth in report.missing] == [ends["s"].key]
    assert [extra["lport"] for extra in report.extra] == [1]
