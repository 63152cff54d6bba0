# SPDX-License-Identifier: Apache-2.0
"""One line per close for a person: under 80 columns, or with `wide` everything there is.

The remote end stands behind "<" when it connected to us, behind ">" when we
connected to it, behind "-" when the socket is older than the tracer.
"""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from tracer.outputs.text import (
    BOLD,
    KIND_COLORS,
    duration,
    endpoint,
    paint,
    short_endpoint,
    shorten,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TextIO

    from tracer.close import Close

DIRECTIONS: Final = {"active": ">", "passive": "<", None: "-"}

# Words that fit. What is dropped says itself: "timeout user" is TCP_USER_TIMEOUT.
KIND_WORDS: Final = {"simultaneous": "crossed", "attempt_failed": "failed"}
CAUSE_WORDS: Final = {
    "data_after_close": "late_data",
    "retransmit_timeout": "retransmit",
    "user_timeout": "user",
    "fin_wait2_timeout": "fin_wait2",
}
SEGMENTS: Final = {
    ("three_way", "fin"): "3",
    ("four_way", "pure"): "4",
    ("four_way", "data"): "4data",  # with a WAIT of five beside it: no room for more
    ("simultaneous", "pure"): "4",
}
BARE_SEGMENTS: Final = {"three_way": "3", "four_way": "4", "simultaneous": "4"}

HEADER: Final = (
    f"{'TIME':<8} {'PID':>7} {'COMM':<8} {'LPORT':>5} {'REMOTE':<21} {'LIFE':>5} "
    f"{'KIND':<7} {'SEGS':<4}{'WAIT':>7}"
)
BYTE_UNITS: Final = "BKMGTP"


class LiveView:
    """Writes a header at once, then a line per close; every call ends with a flush."""

    def __init__(self, stream: TextIO, *, wide: bool, color: bool) -> None:
        self._stream = stream
        self._line = wide_line if wide else line
        self._color = color
        header = wide_header() if wide else HEADER
        self._write([paint(header, BOLD if color else "")])

    def closes(self, closes: Iterable[Close]) -> None:
        """Write one line for each."""
        self._write([self._line(close, color=self._color) for close in closes])

    def _write(self, lines: list[str]) -> None:
        self._stream.write("\n".join(lines) + "\n")
        self._stream.flush()


def line(close: Close, *, color: bool) -> str:
    """Return the close in at most 79 columns, colours not counted."""
    pid, comm = _who(close)
    where = f"{close.lport:>5}{DIRECTIONS[close.opened]}"
    remote = short_endpoint(close.raddr, close.rport, 21)
    life = duration(close.lifetime_us).rjust(27 - len(remote))
    left = f"{local_time(close.at)} {pid:>7} {shorten(comm, 8):<8} {where}{remote}{life}"
    return f"{left} {_end(close, color=color)}".rstrip()


def wide_line(close: Close, *, color: bool) -> str:
    """Return every column of the close and why, as wide as that is."""
    cells = [f"{get(close):{align}{width}}" for _, align, width, get in WIDE_COLUMNS]
    if color and (ink := KIND_COLORS.get(close.kind, "")):
        cells[KIND_AT] = paint(cells[KIND_AT], ink)
    return " ".join(cells)


@functools.lru_cache(maxsize=4)
def _local_clock(utc_second: str) -> str:
    moment = datetime.fromisoformat(utc_second).replace(tzinfo=UTC)
    return moment.astimezone().strftime("%H:%M:%S")


def local_time(at: str) -> str:
    """Return the wall clock of this place, HH:MM:SS, from an RFC 3339 time in UTC."""
    return _local_clock(at[:19])


def volume(count_bytes: int) -> str:
    """Return at most 6 characters: 512B, 1.4K, 23M (powers of 1024)."""
    size, unit = float(count_bytes), 0
    while size >= 1000 and unit < len(BYTE_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    digits = f"{size:.1f}" if unit and size < 10 else f"{size:.0f}"
    return digits + BYTE_UNITS[unit]


# Whoever ended it; a socket that nobody here closed is told by whoever opened it.
def _who(close: Close) -> tuple[str, str]:
    actor = close.closer or close.opener
    return (str(actor.pid), actor.comm) if actor else ("-", "-")


# KIND, then segments and time in CLOSE_WAIT for a close by FIN, else the cause: 19 columns.
def _end(close: Close, *, color: bool) -> str:
    word = KIND_WORDS.get(close.kind, close.kind)
    ink = KIND_COLORS.get(close.kind, "") if color else ""
    if close.handshake is not None:
        segments = SEGMENTS.get(
            (close.handshake, close.fin_ack or ""), BARE_SEGMENTS[close.handshake]
        )
        wait = "" if close.close_wait_us is None else duration(close.close_wait_us)
        return f"{paint(f'{word:<7}', ink)} {segments:<4}{wait.rjust(11 - max(4, len(segments)))}"
    reason = _reason(close)
    joined = f"{word:<7} {reason}" if len(reason) <= 11 else f"{word} {reason}"
    return paint(joined.rstrip(), ink)


# "peer" and "unknown" say less than the error the application saw.
def _reason(close: Close) -> str:
    if close.cause is None or close.cause in ("peer", "unknown"):
        return close.err or close.cause or ""
    return CAUSE_WORDS.get(close.cause, close.cause)


TRUTH: Final = {True: "yes", False: "no", None: "-"}

# Title, alignment, width (more is taken where a value needs it), and where the value comes from.
WIDE_COLUMNS: Final[tuple[tuple[str, str, int, Callable[[Close], str]], ...]] = (
    ("TIME", "<", 12, lambda c: local_time(c.at) + c.at[19:23]),
    ("PID", ">", 7, lambda c: _who(c)[0]),
    ("COMM", "<", 15, lambda c: _who(c)[1]),
    ("LOCAL", "<", 21, lambda c: endpoint(c.laddr, c.lport)),
    (" ", "<", 1, lambda c: DIRECTIONS[c.opened]),
    ("REMOTE", "<", 21, lambda c: endpoint(c.raddr, c.rport)),
    ("LIFE", ">", 5, lambda c: duration(c.lifetime_us)),
    ("TX", ">", 5, lambda c: volume(c.tx_bytes)),
    ("RX", ">", 5, lambda c: volume(c.rx_bytes)),
    ("UNREAD", ">", 6, lambda c: volume(c.unread_bytes)),
    ("KIND", "<", 14, lambda c: c.kind),
    ("HANDSHAKE", "<", 12, lambda c: c.handshake or "-"),
    ("FIN_ACK", "<", 7, lambda c: c.fin_ack or "-"),
    ("CAUSE", "<", 18, lambda c: c.cause or "-"),
    ("ERR", "<", 12, lambda c: c.err or "-"),
    ("HOW", "<", 9, lambda c: (c.closer.how if c.closer else None) or "-"),
    ("TIME_WAIT", "<", 9, lambda c: TRUTH[c.time_wait]),
    ("WAIT", ">", 5, lambda c: duration(c.close_wait_us)),
    ("TEARDOWN", ">", 8, lambda c: duration(c.teardown_us)),
    ("NETNS", "<", 10, lambda c: str(c.netns)),
    ("CGROUP", "<", 24, lambda c: c.cgroup or "-"),
    ("WHY", "<", 0, lambda c: c.why),
)
KIND_AT: Final = [title for title, *_ in WIDE_COLUMNS].index("KIND")


def wide_header() -> str:
    """Return the titles of the wide columns."""
    return " ".join(f"{title:{align}{width}}" for title, align, width, _ in WIDE_COLUMNS).rstrip()
