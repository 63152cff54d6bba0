# SPDX-License-Identifier: Apache-2.0
"""The kinds of close: the words each is taught in, how to make it, and what must be seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tracer.demo import make

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tracer.demo.make import Ends
    from tracer.demo.tun import TunPeer

    Wanted = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """`wanted` maps an end of the connection to the contract keys that must hold for its close."""

    name: str
    title: str
    maker: Callable[[], Ends] | Callable[[TunPeer], Ends]
    wanted: Wanted
    needs_tun: bool = False


def _graceful(first: str, second: str, **both: object) -> Wanted:
    return {
        first: {"kind": "active", "time_wait": True, "cause": None, **both},
        second: {"kind": "passive", "time_wait": False, "cause": None, **both},
    }


def _aborted(cause: str) -> Wanted:
    return {
        "client": {"kind": "abort", "cause": cause, "handshake": None},
        "server": {"kind": "reset", "cause": "peer", "handshake": None},
    }


def _with(wanted: Wanted, end: str, **more: object) -> Wanted:
    return {**wanted, end: {**wanted[end], **more}}


THREE_WAY: Final = _graceful("client", "server", handshake="three_way", fin_ack="fin")
FOUR_WAY: Final = _graceful("client", "server", handshake="four_way", fin_ack="pure")
ON_DATA: Final = _graceful("client", "server", handshake="four_way", fin_ack="data")

SCENARIOS: Final = (
    Scenario(
        "three_way",
        "Three segments: FIN, FIN+ACK, ACK. The server has nothing left to send and closes before "
        "its delayed ACK fires, so the ACK of the client's FIN rides on its own FIN.",
        make.three_way,
        THREE_WAY,
    ),
    Scenario(
        "four_way",
        "Four segments: FIN, ACK, FIN, ACK. The server's application takes its time; the delayed "
        "ACK fires first, and the FIN follows when the application closes.",
        make.four_way,
        FOUR_WAY,
    ),
    Scenario(
        "ack_on_data",
        "The ACK rides on data: the server still had something to say when the client's FIN came.",
        make.ack_on_data,
        _with(ON_DATA, "client", closer="shutdown"),
    ),
    Scenario(
        "half_close",
        "Half close: shutdown(SHUT_WR) gives up one direction. The client's FIN is out, and it "
        "still reads everything the server sends.",
        make.half_close,
        _with(FOUR_WAY, "client", closer="shutdown"),
    ),
    Scenario(
        "simultaneous",
        "Simultaneous close: the FINs cross on the wire, both sides pass through CLOSING.",
        make.simultaneous,
        {"client": {"kind": "simultaneous", "handshake": "simultaneous", "time_wait": True}},
        needs_tun=True,
    ),
    Scenario(
        "exit",
        "The process exits with the connection open: the kernel closes for it, no application "
        "asked for this FIN.",
        make.process_exit,
        _with(THREE_WAY, "client", closer="exit"),
    ),
    Scenario(
        "sigkill",
        "The process is killed by SIGKILL: the kernel closes for it, and the FIN still goes out.",
        make.sigkill,
        _with(THREE_WAY, "client", closer="signal:9"),
    ),
    Scenario(
        "unread_data",
        "close() with data unread: the peer must learn that its data was lost, so the kernel "
        "sends RST instead of FIN.",
        make.unread_data,
        _aborted("unread_data"),
    ),
    Scenario(
        "linger_zero",
        "SO_LINGER with time zero: close() throws the connection away with a RST, no TIME_WAIT.",
        make.linger_zero,
        _aborted("linger_zero"),
    ),
    Scenario(
        "data_after_close",
        "Data after close(): the client gave up both directions, so data that still comes is "
        "answered with a RST.",
        make.data_after_close,
        _aborted("data_after_close"),
    ),
    Scenario(
        "disconnect",
        "connect(AF_UNSPEC): the socket lives on, its connection is cut with a RST.",
        make.disconnect,
        _aborted("disconnect"),
    ),
    Scenario(
        "peer_reset",
        "The peer resets: a RST comes in, both directions end at once.",
        make.peer_resets,
        {"client": {"kind": "reset", "cause": "peer", "err": "ECONNRESET", "handshake": None}},
        needs_tun=True,
    ),
    Scenario(
        "user_timeout",
        f"The peer falls silent: after {make.USER_TIMEOUT_MS} ms without an ACK (TCP_USER_TIMEOUT) "
        "the kernel gives up.",
        make.timeout,
        {"client": {"kind": "timeout", "cause": "user_timeout", "err": "ETIMEDOUT"}},
        needs_tun=True,
    ),
    Scenario(
        "refused",
        "Refused: nobody listens on that port, its host answers the SYN with a RST.",
        make.refused,
        {"client": {"kind": "refused", "cause": "no_listener", "err": "ECONNREFUSED"}},
    ),
    Scenario(
        "attempt_failed",
        "Given up while connecting: nobody had answered the SYN when the client closed.",
        make.attempt_failed,
        {"client": {"kind": "attempt_failed", "handshake": None}},
        needs_tun=True,
    ),
)
