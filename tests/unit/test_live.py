# SPDX-License-Identifier: Apache-2.0
"""The lines a person reads: columns, widths, colours, durations."""

from __future__ import annotations

import dataclasses
import io
import ipaddress
import re
from typing import TYPE_CHECKING

import pytest

from tests.unit import builders as b
from tracer.aggregator import Snapshot
from tracer.outputs import doctor, live, summary, text
from tracer.tcp import Cause, FinAck, Handshake, Kind

if TYPE_CHECKING:
    from tracer.close import Close
    from tracer.wire import Records

ANSI = re.compile(r"\x1b\[[0-9;]*m")
LONGEST_V4 = [0] * 10 + [255] * 6
LONGEST_V6 = list(ipaddress.IPv6Address("2001:db8:1111:2222:3333:4444:5555:6666").packed)
EVERY = {
    "passive": b.passive(),
    "passive_four": b.passive_four(),
    "active": b.active(),
    "orphan": b.orphan(),
    "crossing": b.crossing(),
    "aborted": b.aborted(),
    "reset": b.reset(),
    "timeout": b.timeout(),
    "attempt": b.attempt(),
}


def widest(made: Records, daddr: list[int], family: int) -> Close:
    """Return the close with every field as wide as it can be."""
    made = made.copy()
    made["saddr"] = made["daddr"] = daddr
    made["family"] = family
    made["lport"] = made["rport"] = 65_535
    made["closer"]["tgid"] = 4_194_304
    made["closer"]["comm"] = list(b"a-very-long-name")
    made["opened_ns"] = made["closed_ns"] - 999_999_000
    return b.close_of(made)


@pytest.mark.parametrize("made", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize(("daddr", "family"), [(LONGEST_V4, 4), (LONGEST_V6, 6)])
def test_line_fits_in_79_columns(made: Records, daddr: list[int], family: int) -> None:
    """Whatever closes, the line stays under 80 columns, and an IPv4 peer is whole."""
    close = widest(made, daddr, family)
    shown = live.line(close, color=False)
    assert len(shown) <= 79
    assert (f"{close.raddr}:{close.rport} " in shown) == (family == 4)


def test_every_cause_fits() -> None:
    """Each kind with each cause keeps the line under 80 columns."""
    for kind in ("abort", "reset", "timeout", "refused", "attempt_failed", "unknown"):
        for cause in Cause:
            close = dataclasses.replace(
                widest(b.aborted(), LONGEST_V4, 4), kind=kind, cause=cause.label, err=None
            )
            if (kind, cause) in POSSIBLE:
                assert len(live.line(close, color=False)) <= 79, (kind, cause)


POSSIBLE = {
    (kind.label, cause)
    for kind, causes in {
        Kind.ABORT: (
            Cause.UNREAD_DATA,
            Cause.LINGER_ZERO,
            Cause.DATA_AFTER_CLOSE,
            Cause.DISCONNECT,
            Cause.OUT_OF_MEMORY,
            Cause.FIN_WAIT2_TIMEOUT,
            Cause.SOCK_DESTROY,
            Cause.NO_LISTENER,
            Cause.UNKNOWN,
        ),
        Kind.TIMEOUT: (
            Cause.RETRANSMIT_TIMEOUT,
            Cause.USER_TIMEOUT,
            Cause.KEEPALIVE,
            Cause.FIN_WAIT2_TIMEOUT,
        ),
        Kind.RESET: (Cause.PEER,),
        Kind.REFUSED: (Cause.NO_LISTENER, Cause.UNKNOWN),
        Kind.ATTEMPT_FAILED: (Cause.RETRANSMIT_TIMEOUT, Cause.NO_LISTENER, Cause.SOCK_DESTROY),
        Kind.UNKNOWN: (Cause.UNKNOWN,),
    }.items()
    for cause in causes
}


def test_lines_stand_under_their_titles() -> None:
    """Each value begins or ends where its title does."""
    made = b.passive(daddr=[0] * 10 + [255, 255, 10, 0, 0, 9], closer__comm=b"nginx")
    made["lport"], made["rport"] = 443, 51_234
    line, header = live.line(b.close_of(made), color=False), live.HEADER
    for title, value in (("PID", "4711"), ("LPORT", "443"), ("LIFE", "1.0s"), ("WAIT", "34us")):
        assert line.index(value) + len(value) == header.index(title) + len(title), title
    for title, value in (("COMM", "nginx"), ("REMOTE", "10.0.0.9:51234"), ("KIND", "passive")):
        assert line.index(value) == header.index(title), title
    assert line[header.index("REMOTE") - 1] == "<"


@pytest.mark.parametrize(
    ("made", "end"),
    [
        (b.passive(), "passive 3      34us"),
        (b.passive_four(), "passive 4      34us"),
        (b.active(), "active  3"),
        (b.crossing(), "crossed 4"),
        (b.reset(), "reset   ECONNRESET"),
        (b.aborted(unread=5), "abort   unread_data"),
    ],
)
def test_end_of_line_says_how(made: Records, end: str) -> None:
    """Kind, segments and wait, or kind and cause."""
    assert live.line(b.close_of(made), color=False).endswith(end)


def test_color_is_only_paint() -> None:
    """Colours change nothing but colours, and calm closes have none."""
    for made in EVERY.values():
        close = b.close_of(made)
        painted = live.line(close, color=True)
        assert ANSI.sub("", painted).rstrip() == live.line(close, color=False)
        assert ("\x1b" in painted) == (close.kind not in {"active", "passive", "simultaneous"})


def test_wide_line_has_everything() -> None:
    """-w shows every column in full, and why."""
    close = widest(b.passive_four(), LONGEST_V6, 6)
    shown = live.wide_line(close, color=False)
    for value in (close.why, f"[{close.raddr}]:65535", "a-very-long-name", "four_way", "pure"):
        assert value in shown
    assert len(live.wide_header().split()) == len(live.WIDE_COLUMNS) - 1  # the arrow has no title


def test_view_writes_one_header_and_flushes() -> None:
    """The header comes at once and once."""
    stream = io.StringIO()
    view = live.LiveView(stream, wide=False, color=False)
    assert stream.getvalue() == live.HEADER + "\n"
    view.closes([b.close_of(b.passive())] * 3)
    view.closes([b.close_of(b.active())])
    assert stream.getvalue().count("\n") == 5


@pytest.mark.parametrize(
    ("us", "expected"),
    [
        (None, "-"),
        (0, "0us"),
        (999, "999us"),
        (1_000, "1.0ms"),
        (9_999, "9.9ms"),
        (10_000, "10ms"),
        (999_999, "999ms"),
        (1_000_000, "1.0s"),
        (59_999_999, "59s"),
        (60_000_000, "1.0m"),
        (3_600_000_000, "1.0h"),
        (86_400_000_000, "1.0d"),
        (400 * 86_400_000_000, "400d"),
    ],
)
def test_duration(us: int | None, expected: str) -> None:
    """At most five characters, never rounded up to more than it was."""
    assert text.duration(us) == expected


@pytest.mark.parametrize(
    ("count_bytes", "expected"),
    [(0, "0B"), (999, "999B"), (1000, "1.0K"), (10 << 20, "10M"), (1 << 40, "1.0T")],
)
def test_volume(count_bytes: int, expected: str) -> None:
    """Powers of 1024, few characters."""
    assert live.volume(count_bytes) == expected


def snapshot(**changes: object) -> Snapshot:
    """Return what a small run came to."""
    base = Snapshot(
        records=30,
        shown=30,
        closes={(Kind.PASSIVE, Handshake.THREE_WAY): 15, (Kind.ACTIVE, Handshake.FOUR_WAY): 5},
        fin_acks={FinAck.FIN: 15, FinAck.PURE: 5},
        causes={(Kind.ABORT, Cause.LINGER_ZERO): 3, (Kind.ABORT, Cause.UNREAD_DATA): 7},
        lost={"ring_full": 0, "conn_map_full": 0, "decode": 0},
        kernel={"closes": 30, "emitted": 30},
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def test_summary_of_a_good_run() -> None:
    """Shares, causes by number, and the good news said in words."""
    shown = summary.as_text(snapshot())
    assert "75.0 % of 20 closes by FIN" in shown
    assert "RST sent: 10 (unread_data 7, linger_zero 3)" in shown
    assert "Nothing lost: the kernel saw 30 closes." in shown
    assert max(map(len, shown.splitlines())) < 80


def test_an_abort_without_a_rst_is_none_that_was_sent() -> None:
    """It has a line of its own, and its cause no place among the RSTs."""
    shown = summary.as_text(snapshot(silent={Cause.LINGER_ZERO: 3}))
    assert "RST sent: 7 (unread_data 7)" in shown
    assert "Forgotten without a RST: 3 (linger_zero 3)" in shown


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"lost": {"ring_full": 4}, "kernel": {"closes": 34, "emitted": 30}}, "LOST 4 closes"),
        ({"kernel": {"closes": 36, "emitted": 36}}, "UNACCOUNTED: 6 of the 36 closes"),
        ({"kernel": {}}, "is not known"),
        ({"kernel": {"closes": 30, "emitted": 30, "unknown_sockets": 2}}, "2 sockets older"),
        ({"kernel": {"closes": 30, "emitted": 30, "gaps": 1}}, "1 state change missed"),
        ({"kernel": {"closes": 30, "emitted": 30, "missed": 3}}, "3 state changes ran none of"),
        (
            {"kernel": {"closes": 30, "emitted": 30, "second_children": 1}},
            "1 socket undone by the kernel",
        ),
        ({"resets_unmatched": 2}, "2 reports of a RST of ours found no close"),
        ({"shown": 20}, "20 closes (10 more not shown)"),
    ],
)
def test_summary_tells_what_is_not_good(changes: dict[str, object], expected: str) -> None:
    """Nothing is passed over in silence."""
    assert expected in summary.as_text(snapshot(**changes))


def test_summary_of_nothing() -> None:
    """No close is a result too."""
    shown = summary.as_text(snapshot(records=0, shown=0, closes={}, fin_acks={}, causes={}))
    assert "0 closes" in shown
    assert "KIND" not in shown


@dataclasses.dataclass
class Fact:
    """Like the one of kernel/support.py."""

    name: str
    ok: bool | None
    detail: str
    remedy: str | None = None


def test_doctor_names_the_remedy() -> None:
    """A "no" comes with what to do, and decides."""
    facts = [Fact("btf", True, "there"), Fact("bcc", False, "missing " * 20, "apt install it")]
    shown = doctor.as_text(facts, color=False)
    assert "-> apt install it" in shown
    assert "cannot run here" in shown
    assert max(map(len, shown.splitlines())) < 80
    assert not doctor.able(facts)
    assert doctor.able([Fact("cgroup2", None, "not mounted")])
    assert len(doctor.as_json(facts).splitlines()) == 2
