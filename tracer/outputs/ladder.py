# SPDX-License-Identifier: Apache-2.0
"""One close as a ladder: who sent what, when, and the states it led to on either side.

Drawn from the Close alone, so from this host's view: times are when a segment was
queued or processed here, and the peer's states are what RFC 9293 says they must be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tracer.outputs.text import duration, short_endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tracer.close import Close

    Steps = Iterator["Step"]

ARROW_WIDTH: Final = 26
STATE_WIDTH: Final = 11
TIME_WIDTH: Final = 8
SIDE_WIDTH: Final = TIME_WIDTH + 1 + STATE_WIDTH


@dataclass(frozen=True, slots=True)
class Glyphs:
    """What the picture is drawn with."""

    bar: str
    dash: str
    right: str
    left: str
    lost: str
    ellipsis: str


UNICODE: Final = Glyphs("│", "─", "▶", "◀", "✕", "…")
ASCII: Final = Glyphs("|", "-", ">", "<", "x", "~")


@dataclass(frozen=True, slots=True)
class Step:
    """One rung. `at_us` is the offset of the timeline, None when not known.

    `way` is "out", "in", "lost" (sent, never answered) or "" for no segment at all.
    """

    way: str
    label: str
    at_us: int | None
    local: str = ""
    peer: str = ""


def draw(close: Close, *, encoding: str | None = "utf-8") -> list[str]:
    """Return the ladder's lines, at most 72 columns; ASCII when the encoding has no more."""
    glyphs = glyphs_for(encoding)
    steps = _steps(close)
    start_us = min((at for name, at in close.timeline_us.items() if name in BEGINNINGS), default=0)
    rungs = (_rung(step, start_us, glyphs) for step in steps)
    return [_title(close, glyphs), *rungs]


def glyphs_for(encoding: str | None) -> Glyphs:
    """Return UNICODE where the encoding has it, else ASCII."""
    try:
        f"{UNICODE.bar}{UNICODE.right}{UNICODE.lost}".encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE


def _title(close: Close, glyphs: Glyphs) -> str:
    local = short_endpoint(close.laddr, close.lport, 28).replace("…", glyphs.ellipsis)
    peer = short_endpoint(close.raddr, close.rport, 28).replace("…", glyphs.ellipsis)
    gap = max(2, SIDE_WIDTH + ARROW_WIDTH + 4 - len(f"{local:>{SIDE_WIDTH + 2}}"))
    return f"{local:>{SIDE_WIDTH + 2}}{' ' * gap}{peer}"[:72]


def _rung(step: Step, start_us: int, glyphs: Glyphs) -> str:
    time = "" if step.at_us is None or step.at_us < start_us else _after(step.at_us - start_us)
    left = f"{time:>{TIME_WIDTH}} {step.local:<{STATE_WIDTH}}"
    middle = _arrow(step, glyphs)
    return f"{left} {glyphs.bar}{middle}{glyphs.bar} {step.peer}".rstrip()


def _after(us: int) -> str:
    return f"+{duration(us)}" if us else "0"


def _arrow(step: Step, glyphs: Glyphs) -> str:
    if not step.way:
        return step.label.center(ARROW_WIDTH) if step.label else " " * ARROW_WIDTH
    body = f" {step.label} ".center(ARROW_WIDTH - 1, glyphs.dash)
    if step.way == "in":
        return glyphs.left + body
    if step.way == "lost":
        return body[: ARROW_WIDTH - 4] + glyphs.dash + glyphs.lost + "  "
    return body + glyphs.right


def _steps(close: Close) -> Steps:
    if close.kind not in NEVER_ESTABLISHED:
        at = close.timeline_us.get("established")
        yield Step("", "", at, "ESTABLISHED", "ESTABLISHED")
    else:
        yield Step("", "", None, "", "")
    yield from STORIES[close.kind](close)


def _active(close: Close) -> Steps:
    at = close.timeline_us
    yield Step("out", "FIN", at.get("fin_sent"), "FIN_WAIT1", "CLOSE_WAIT")
    if close.handshake == "three_way":
        yield Step("in", "FIN + ACK", at.get("fin_received"), "", "LAST_ACK")
    else:
        yield Step("in", _carrier(close), at.get("fin_acked"), "FIN_WAIT2")
        yield from _peer_fin(close)
    if close.time_wait and "fin_received" in at:
        yield Step("out", "ACK", at.get("closed"), "TIME_WAIT", "CLOSE")


def _carrier(close: Close) -> str:
    if close.handshake is None:
        return "ACK (with the FIN?)"
    return "data + ACK" if close.fin_ack == "data" else "ACK"


# An orphan's FIN_WAIT2 is a mini-socket: the peer's FIN comes to it, unseen by the tracer.
def _peer_fin(close: Close) -> Steps:
    at = close.timeline_us
    if "fin_received" in at:
        yield Step("in", "FIN", at["fin_received"], "", "LAST_ACK")
    else:
        yield Step("", "(FIN to come, unseen)", at.get("closed"))


def _passive(close: Close) -> Steps:
    at = close.timeline_us
    yield Step("in", "FIN", at.get("fin_received"), "CLOSE_WAIT", "FIN_WAIT1")
    if close.handshake == "three_way":
        yield Step("out", "FIN + ACK", at.get("fin_sent"), "LAST_ACK")
    else:
        yield Step("out", _carrier(close), at.get("ack_sent"), "", "FIN_WAIT2")
        yield Step("out", "FIN", at.get("fin_sent"), "LAST_ACK")
    yield Step("in", "ACK", at.get("closed"), "CLOSE", "TIME_WAIT")


def _simultaneous(close: Close) -> Steps:
    at = close.timeline_us
    yield Step("out", "FIN", at.get("fin_sent"), "FIN_WAIT1", "FIN_WAIT1")
    yield Step("in", "FIN (they crossed)", at.get("fin_received"), "CLOSING", "CLOSING")
    yield Step("out", "ACK", at.get("fin_received"))
    yield Step("in", "ACK", at.get("closed"), "TIME_WAIT", "TIME_WAIT")


# FINs that were exchanged before something else ended the connection.
def _fins(close: Close) -> Steps:
    at = close.timeline_us
    both = {"fin_sent", "fin_received"} <= at.keys()
    for when, way, label, local, peer in _both_fins(at) if both else _single_fin(at):
        yield Step(way, label, when, local, peer)


def _both_fins(at: dict[str, int]) -> list[tuple[int, str, str, str, str]]:
    after_theirs = at["fin_received"] <= at["fin_sent"]
    ours = (at["fin_sent"], "out", "FIN", "LAST_ACK" if after_theirs else "FIN_WAIT1", "")
    theirs = (at["fin_received"], "in", "FIN", "CLOSE_WAIT", "FIN_WAIT1")
    return [theirs, ours] if after_theirs else [ours, theirs]


def _single_fin(at: dict[str, int]) -> list[tuple[int, str, str, str, str]]:
    if "fin_sent" in at:
        fin = (at["fin_sent"], "out", "FIN", "FIN_WAIT1", "CLOSE_WAIT")
        acked = (at["fin_acked"], "in", "ACK", "FIN_WAIT2", "") if "fin_acked" in at else None
        return [fin, acked] if acked else [fin]
    if "fin_received" in at:
        return [(at["fin_received"], "in", "FIN", "CLOSE_WAIT", "FIN_WAIT1")]
    return []


# When the unread data came is not known: before the peer's FIN, and hardly before ours.
def _abort(close: Close) -> Steps:
    at = close.timeline_us
    unread = [Step("in", "data, never read", None)] if close.unread_bytes else []
    yield from [] if "fin_sent" in at else unread
    yield from _fins(close)
    yield from unread if "fin_sent" in at else []
    if close.cause == "data_after_close":
        yield Step("in", "data", at.get("rst_sent"))
    if "rst_sent" in at:
        yield Step("out", "RST", at["rst_sent"], "CLOSE", "CLOSE")
    else:
        yield Step("", "(no RST seen)", at.get("closed"), "CLOSE", "?")


def _reset(close: Close) -> Steps:
    at = close.timeline_us
    yield from _fins(close)
    yield Step("in", "RST", at.get("rst_received", at.get("closed")), "CLOSE", "CLOSE")


def _timeout(close: Close) -> Steps:
    at = close.timeline_us
    yield from _fins(close)
    if close.cause != "fin_wait2_timeout":
        yield Step("lost", "no answer", None)
    rst = "rst_sent" in at
    yield Step("", _words(close), None if rst else at.get("closed"), "" if rst else "CLOSE", "?")
    if rst:
        yield Step("out", "RST", at["rst_sent"], "CLOSE")


def _refused(close: Close) -> Steps:
    at = close.timeline_us.get("closed")
    yield Step("out", "SYN", None, "SYN_SENT")
    if close.cause == "no_listener":
        yield Step("in", "RST + ACK", at, "CLOSE", "no listener")
    else:
        yield Step("", "(refused, no RST seen)", at, "CLOSE", "?")


def _attempt_failed(close: Close) -> Steps:
    at = close.timeline_us.get("closed")
    if close.opened == "passive":
        yield Step("in", "SYN", None, "SYN_RECV", "SYN_SENT")
        yield Step("out", "SYN + ACK", None)
    else:
        yield Step("lost", "SYN", None, "SYN_SENT")
    if close.cause == "peer":
        yield Step("in", "RST", at, "CLOSE", "CLOSE")
    else:
        yield Step("", _words(close), at, "CLOSE", "?")


# What ended it where no segment did.
def _words(close: Close) -> str:
    return TIMEOUT_WORDS.get(close.cause or "", close.cause or close.err or "gave up")


def _unknown(close: Close) -> Steps:
    yield from _fins(close)
    yield Step("", "(not seen)", close.timeline_us.get("closed"), "CLOSE", "?")


# Times count from the first of these; without any, from the first moment known.
BEGINNINGS: Final = ("fin_sent", "fin_received", "rst_sent", "rst_received")
NEVER_ESTABLISHED: Final = ("refused", "attempt_failed")
TIMEOUT_WORDS: Final = {
    "user_timeout": "TCP_USER_TIMEOUT",
    "keepalive": "keepalive unanswered",
    "retransmit_timeout": "retransmissions used up",
    "fin_wait2_timeout": "tcp_fin_timeout",
}
STORIES: Final[dict[str, Callable[[Close], Steps]]] = {
    "active": _active,
    "passive": _passive,
    "simultaneous": _simultaneous,
    "abort": _abort,
    "reset": _reset,
    "timeout": _timeout,
    "refused": _refused,
    "attempt_failed": _attempt_failed,
    "unknown": _unknown,
}
