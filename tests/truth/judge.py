# SPDX-License-Identifier: Apache-2.0
"""What the packets say about each end of a connection, decided without the tracer.

The rules, by sequence and acknowledgement numbers and not by times or places in the capture,
because two packets that crossed have no true order there.

* *First FIN.* If the second end's first FIN acknowledges the first end's FIN, the first end was
  first: it is `active`, the other `passive`. If neither FIN acknowledges the other, they crossed:
  `simultaneous` on both ends. Only the first copy of a FIN counts.
* *The ACK of the first FIN* is the first segment of the other end whose acknowledgement covers it.
  It is `fin` if it carries the FIN, `data` if it carries payload and no FIN, else `pure`. A
  captured segment longer than one MSS travels as several, the FIN on the last: `data`.
  `fin` makes the close `three_way`, everything else `four_way`.
  An ACK that was made before that FIN and came after it was overtaken, as happens between the
  CPUs of a loopback: four segments left, three told the story. Both are accepted.
* *A RST with ACK* (and a sequence number) was sent by a socket of its own accord: that end is
  `abort`, whatever else it received. After keep-alive probes nobody answered it may be `timeout`.
* *A RST without ACK* answers a segment. If the sender's socket was still there, that end is
  `abort` (data after close). If its FIN had been acknowledged before the answered segment came,
  its close() may have left a mini-socket behind, which is what answered: the record left earlier
  and says `active`. A capture cannot show which, so both are accepted there.
* *Received RST*: `reset`, unless that end had closed before. Closed before means: its FIN was
  acknowledged and it had the peer's FIN. With its FIN acknowledged and no FIN from the peer it
  depends on whether the application still held the socket: both `reset` and `active` are accepted.
* *No connection*: RST in answer to the SYN is `refused`, anything else `attempt_failed` (a SYN
  nobody answered may be called `timeout`). An end whose last segments were repeated without any
  answer may be a `timeout`.

`Ending` is one acceptable verdict as a whole; an end has several only in the cases named above.
An end with no ending is still open as far as packets tell.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from tests.truth.packets import ACK, FIN, RST, SYN, Address, Connection, Segment, Sent

if TYPE_CHECKING:
    from collections.abc import Iterable

UNSET = frozenset[str | None]({None})


@dataclass(frozen=True, slots=True)
class Ending:
    """One acceptable verdict on one end; `handshake` and `fin_ack` list what is acceptable."""

    kind: str
    handshake: frozenset[str | None] = UNSET
    fin_ack: frozenset[str | None] = UNSET
    time_wait: bool | None = False
    rst_sent: bool = False
    rst_received: bool = False


@dataclass(frozen=True, slots=True)
class Truth:
    """What the packets say about one end."""

    family: int
    local: Address
    remote: Address
    opened: str | None
    endings: tuple[Ending, ...]
    may_be_open: bool
    tx_bytes: int
    rx_bytes: range
    unacked_bytes: int
    connection: Connection = field(repr=False)

    @property
    def key(self) -> tuple[int, str, int, str, int]:
        """(family, laddr, lport, raddr, rport)."""
        return (self.family, *self.local, *self.remote)


class End:
    """One end's view of a connection: what `me` sent, what `peer` sent."""

    def __init__(self, me: Sent, peer: Sent) -> None:
        """Both `Sent` belong to one connection."""
        self.me, self.peer = me, peer

    def start(self, segment: Segment) -> int:
        """Return the relative number of the first byte of a segment of mine."""
        return self.me.start(segment)

    def end(self, segment: Segment) -> int:
        """Return the relative number after the last byte of a segment of mine."""
        return self.me.end(segment)

    @cached_property
    def fin(self) -> Segment | None:
        """The first copy of my FIN."""
        return next((s for s in self.me.segments if s.flags & FIN), None)

    @cached_property
    def stream_bytes(self) -> int:
        """Unique payload bytes I sent."""
        ends = [self.start(s) + s.payload_bytes for s in self._in_stream() if s.payload_bytes]
        return max(ends, default=1) - 1

    def _in_stream(self) -> list[Segment]:
        return [s for s in self.me.segments if not s.flags & (SYN | RST)]

    @cached_property
    def max_ack(self) -> int:
        """The highest number of the peer's space that I acknowledged, RST with ACK included."""
        acks = [self.peer.relative(s.ack) for s in self.me.segments if s.flags & ACK]
        return max(acks, default=0)

    @cached_property
    def active_rst(self) -> Segment | None:
        """The RST my socket sent of its own accord: it has ACK and a place in my stream."""
        return next((s for s in self._resets() if s.flags & ACK and s.seq), None)

    @cached_property
    def reply_rst(self) -> Segment | None:
        """The first RST that answered a segment of the peer."""
        return next((s for s in self._resets() if not (s.flags & ACK and s.seq)), None)

    def _resets(self) -> list[Segment]:
        return [s for s in self.me.segments if s.flags & RST]

    def covers(self, ack: Segment, fin: Segment) -> bool:
        """Tell whether the peer's segment `ack` acknowledges my `fin`."""
        return bool(ack.flags & ACK) and self.me.relative(ack.ack) >= self.end(fin)

    @cached_property
    def fin_acker(self) -> Segment | None:
        """The peer's first segment that acknowledges my FIN, a RST not counted."""
        fin = self.fin
        if fin is None:
            return None
        living = (s for s in self.peer.segments if not s.flags & RST)
        return next((s for s in living if self.covers(s, fin)), None)

    @cached_property
    def repeats_unanswered(self) -> bool:
        """Whether my last segments before any RST of mine were repeats that nobody answered."""
        end = self.active_rst.index if self.active_rst is not None else float("inf")
        heard = max((s.index for s in self.peer.segments if s.index < end), default=-1)
        lonely = [s for s in self.me.segments if s.index > heard and not s.flags & RST]
        return any(a.seq == b.seq for a, b in pairwise(lonely)) or self._probing(lonely)

    def _probing(self, lonely: list[Segment]) -> bool:
        # A keep-alive probe lies one byte before the end of what was acknowledged.
        acks = [self.me.relative(s.ack) for s in self.peer.segments if s.flags & ACK]
        acked = max(acks, default=0)
        return any(not s.payload_bytes and self.start(s) == acked - 1 for s in lonely)


def judge(connection: Connection) -> list[Truth]:
    """Return the truth about the client's end and, if there was one, the server's."""
    client = End(connection.client, connection.server)
    server = End(connection.server, connection.client)
    if connection.whole and not _established(connection):
        return [_truth(connection, client, server, _attempt(server))]
    truths = []
    for me, peer in ((client, server), (server, client)):
        endings = tuple(_endings(me, peer, connection.segment_bytes))
        truths.append(_truth(connection, me, peer, endings))
    return truths


def judge_all(found: Iterable[Connection]) -> list[Truth]:
    """Judge every connection of a capture."""
    return [truth for connection in found for truth in judge(connection)]


def _truth(connection: Connection, me: End, peer: End, endings: tuple[Ending, ...]) -> Truth:
    opened = None
    if connection.whole:
        opened = "active" if me.me is connection.client else "passive"
    acked = max(0, peer.max_ack - 1 - (me.fin_acker is not None))
    return Truth(
        connection.family,
        me.me.address,
        me.peer.address,
        opened,
        endings,
        may_be_open=not endings or any(e.kind == "timeout" for e in endings),
        tx_bytes=me.stream_bytes,
        rx_bytes=_received(me, peer),
        unacked_bytes=max(0, me.stream_bytes - acked),
        connection=connection,
    )


def _received(me: End, peer: End) -> range:
    # Bytes I acknowledged I have; bytes the peer sent later may have come or not.
    acked = min(max(0, me.max_ack - 1), peer.stream_bytes)
    return range(acked, peer.stream_bytes + 1)


def _established(connection: Connection) -> bool:
    client, server = connection.client, connection.server
    answered = any(s.flags & (SYN | ACK) == SYN | ACK for s in server.segments)
    confirmed = any(s.flags & (SYN | ACK | RST) == ACK for s in client.segments)
    # A RST of the client's own accord also comes from an established socket.
    return answered and (confirmed or any(s.flags & RST for s in client.segments))


def _attempt(server: End) -> tuple[Ending, ...]:
    if server.reply_rst is not None or server.active_rst is not None:
        return (Ending("refused", rst_received=True),)
    return Ending("attempt_failed"), Ending("timeout")


def _endings(me: End, peer: End, segment_bytes: int) -> list[Ending]:
    graceful = _graceful(me, peer, segment_bytes)
    if me.active_rst is not None:
        return _aborted(me, graceful)
    if _closed(me, peer):
        return [graceful]
    if me.reply_rst is not None and not _reset_before(me.reply_rst, me, peer):
        return _answered_with_rst(me.reply_rst, me, peer, graceful)
    if any(_takes(rst, me, peer) for rst in peer.me.segments if rst.flags & RST):
        return _reset(me, graceful)
    if me.fin is not None and me.fin_acker is not None:
        return [_half_closed(graceful)]
    return [Ending("timeout", time_wait=None)] if me.repeats_unanswered else []


def _closed(me: End, peer: End) -> bool:
    """Tell whether this end was through: its FIN acknowledged and the peer's FIN taken."""
    if me.fin is None or me.fin_acker is None or peer.fin is None:
        return False
    return me.max_ack >= peer.end(peer.fin)


def _aborted(me: End, graceful: Ending) -> list[Ending]:
    abort = Ending("abort", UNSET | _if_two(graceful), _lenient(graceful), rst_sent=True)
    if me.repeats_unanswered:
        return [abort, Ending("timeout", rst_sent=True)]
    return [abort]


def _if_two(graceful: Ending) -> frozenset[str | None]:
    return graceful.handshake if graceful.kind != "half" else UNSET


def _lenient(graceful: Ending) -> frozenset[str | None]:
    return graceful.fin_ack | UNSET


def _reset_before(reply: Segment, me: End, peer: End) -> bool:
    """Tell whether a RST had ended my socket before it could have answered anything."""
    return any(
        rst.index < reply.index and _takes(rst, me, peer)
        for rst in peer.me.segments
        if rst.flags & RST
    )


def _takes(rst: Segment, me: End, peer: End) -> bool:
    # In the window, or one before it: the kernel takes a RST at the place of the FIN as well.
    ends = [peer.end(s) for s in peer.me.segments if not s.flags & RST and s.index < rst.index]
    acked = [me.peer.relative(s.ack) for s in me.me.segments if s.flags & ACK]
    before = [a for s, a in zip(_with_ack(me), acked, strict=True) if s.index < rst.index]
    return max(before, default=0) - 1 <= peer.start(rst) <= max([1, *ends])


def _with_ack(me: End) -> list[Segment]:
    return [s for s in me.me.segments if s.flags & ACK]


def _answered_with_rst(reply: Segment, me: End, peer: End, graceful: Ending) -> list[Ending]:
    abort = Ending("abort", UNSET, _lenient(graceful), rst_sent=True)
    acker = me.fin_acker
    # Its sequence number is the acknowledgement of the answered segment.
    if me.fin is None or acker is None or me.start(reply) < me.end(me.fin):
        return [abort]
    # The very segment that acknowledged the FIN was refused: no mini-socket yet.
    if acker.payload_bytes and me.max_ack <= peer.start(acker):
        return [abort]
    return [abort, _half_closed(graceful)]


def _reset(me: End, graceful: Ending) -> list[Ending]:
    reset = Ending("reset", UNSET | _if_two(graceful), _lenient(graceful), rst_received=True)
    if me.fin is not None and me.fin_acker is not None:
        return [reset, _half_closed(graceful)]
    return [reset]


def _half_closed(graceful: Ending) -> Ending:
    """My FIN is acknowledged, no FIN came: the mini-socket's record cannot know the rest."""
    return Ending("active", frozenset({"four_way", None}), graceful.fin_ack, time_wait=True)


def _graceful(me: End, peer: End, segment_bytes: int) -> Ending:
    """Return the verdict the FINs alone would give; kind `half` when there are not two."""
    if me.fin is None or peer.fin is None:
        one = me if me.fin is not None else peer
        return Ending("half", fin_ack=frozenset({_carrier(one, segment_bytes)}))
    if me.covers(peer.fin, me.fin):
        kind, first = "active", me
    elif peer.covers(me.fin, peer.fin):
        kind, first = "passive", peer
    else:
        either = frozenset({"pure", "data", None})
        return Ending("simultaneous", frozenset({"simultaneous"}), either, time_wait=True)
    carrier = _carrier(first, segment_bytes)
    handshake = "three_way" if carrier == "fin" else "four_way"
    shakes, carriers = frozenset[str | None]({handshake}), frozenset({carrier})
    if carrier == "fin" and _overtaken(first, peer if first is me else me):
        shakes, carriers = shakes | {"four_way"}, carriers | {"pure"}
    return Ending(kind, shakes, carriers, time_wait=first is me)


def _overtaken(first: End, second: End) -> bool:
    """Tell whether an ACK of the first FIN was made before the second FIN but came after it.

    Its place in the stream is the FIN's own: what is made after a FIN has the place behind it.
    """
    fin = second.fin
    if fin is None or first.fin is None:
        return False
    return any(
        not (s.flags & (SYN | FIN | RST) or s.payload_bytes)
        and second.start(s) <= second.end(fin) - 1
        and first.covers(s, first.fin)
        for s in second.me.segments
        if s.index > fin.index
    )


def _carrier(first: End, segment_bytes: int) -> str | None:
    acker = first.fin_acker
    if acker is None:
        return None
    if acker.flags & FIN and acker.payload_bytes <= segment_bytes:
        return "fin"
    return "data" if acker.payload_bytes else "pure"
