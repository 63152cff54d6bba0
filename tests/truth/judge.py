# SPDX-License-Identifier: Apache-2.0
"""What the packets say about each end of a connection, decided without the tracer.

The rules, by sequence and acknowledgement numbers and not by times or places in the capture,
because two packets that crossed have no true order there.

* *First FIN.* If the second end's first FIN acknowledges the first end's FIN, the first end was
  first: it is `active`, the other `passive`. If neither FIN acknowledges the other, they crossed:
  `simultaneous` on both ends. Only the first copy of a FIN counts, unless it was refused (no room
  for the data before it): then the end that refused it may be `active`, its handshake null.
* *The ACK of the first FIN* is the first segment of the other end whose acknowledgement covers it.
  It is `fin` if it carries the FIN, `data` if it carries payload and no FIN, else `pure`. A
  captured segment longer than one MSS travels as several, the FIN on the last: `data`.
  `fin` makes the close `three_way`, everything else `four_way`.
  An ACK that was made before that segment and came after it was overtaken, as happens between
  the CPUs of a loopback: four segments left, three told the story. Both are accepted.
* *FINs that crossed* look to an end as one segment when the peer's FIN and the ACK behind it were
  joined in the backlog, before that end could acknowledge the FIN: that end may be `active`, its
  handshake null.
* *A RST with ACK* (and a sequence number) was sent by a socket of its own accord: that end is
  `abort`, whatever else it received. After keep-alive probes nobody answered, or long after its
  FIN was acknowledged, it may be `timeout`.
* *TIME_WAIT* is held by the first end, by both when the FINs crossed. A FIN that waited behind
  data, or in its host's queue, when the other came leaves a TIME_WAIT, too, and the packets do not
  show how long it waited.
* *A RST without ACK* answers a segment, which came before it and before a RST of the peer if
  nothing came in between. If the sender's socket was still there, that end is
  `abort` (data after close). If its FIN had been acknowledged before the answered segment came,
  its close() may have left a mini-socket behind, which is what answered: the record left earlier
  and says `active`. A capture cannot show which, so both are accepted there.
* *Received RST*: `reset`, unless that end had closed before. Closed before means: its FIN was
  acknowledged and it had the peer's FIN. With its FIN acknowledged and no FIN from the peer it
  depends on whether the application still held the socket: both `reset` and `active` are accepted.
* *Taken back*: a client whose RST answers the SYN and ACK, as health checks do, was never connected
  at the server: without data in the SYN there is no socket there, and no record.
* *No connection*: RST in answer to the SYN is `refused`, anything else `attempt_failed` (a SYN
  nobody answered may be called `timeout`). An end whose last segments were repeated without any
  answer may be a `timeout`.

`Ending` is one acceptable verdict as a whole; an end has several only in the cases named above.
An end with no ending is still open as far as packets tell.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tests.truth.carriers import carriers
from tests.truth.ends import End
from tests.truth.packets import ACK, RST, SYN, Address, Connection, Segment

if TYPE_CHECKING:
    from collections.abc import Iterable

UNSET = frozenset[str | None]({None})
# No timer of the socket itself is set to less in FIN_WAIT2.
FIN_WAIT2_MIN_S = 0.5
# Longer than a sent segment stays in the queues of its own host (tcp_small_queue_check()), and
# than close() holds the lock.
IN_OWN_HOST_S = 0.001


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

    def without_time_wait(self) -> Truth:
        """Return the same, with no opinion on TIME_WAIT."""
        endings = tuple(replace(ending, time_wait=None) for ending in self.endings)
        return replace(self, endings=endings)


def judge(connection: Connection) -> list[Truth]:
    """Return the truth about the client's end and, if there was one, the server's."""
    client = End(connection.client, connection.server)
    server = End(connection.server, connection.client)
    if connection.whole and not _established(connection):
        return [_truth(connection, client, server, _attempt(server))]
    truths = []
    for me, peer in ((client, server), (server, client)):
        taken_back = _taken_back(connection, me)
        if taken_back and not _data_in_syn(peer):
            continue  # there was a request, never a socket
        endings = [*_endings(me, peer, connection.segment_bytes), *taken_back]
        truths.append(_truth(connection, me, peer, tuple(endings)))
    return truths


def judge_all(found: Iterable[Connection]) -> list[Truth]:
    """Judge every connection of a capture."""
    return [truth for connection in found for truth in judge(connection)]


def _truth(connection: Connection, me: End, peer: End, endings: tuple[Ending, ...]) -> Truth:
    opened = None
    if connection.whole:
        opened = "active" if me.sent_syn else "passive"
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


def _taken_back(connection: Connection, me: End) -> list[Ending]:
    """With data in the SYN a server has a socket before the client's first ACK."""
    then = next((s for s in connection.client.segments if s.flags & (ACK | RST)), None)
    if me.sent_syn or then is None or not then.flags & RST:
        return []
    return [Ending("attempt_failed", rst_received=True)]


def _data_in_syn(client: End) -> bool:
    return any(s.flags & SYN and s.payload_bytes for s in client.me.segments)


def _attempt(server: End) -> tuple[Ending, ...]:
    if server.reply_rst is not None or server.active_rst is not None:
        return (Ending("refused", rst_received=True),)
    return Ending("attempt_failed"), Ending("timeout")


def _endings(me: End, peer: End, segment_bytes: int) -> list[Ending]:
    graceful = _graceful(me, peer, segment_bytes)
    if me.active_rst is not None:
        return _aborted(me, graceful)
    if _closed(me, peer):
        return [graceful, *_refused_fin(me, peer, graceful), *_joined(me, peer, graceful)]
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


def _refused_fin(me: End, peer: End, graceful: Ending) -> list[Ending]:
    """My socket had no room for the first copy of the peer's FIN, and never knew that they crossed.

    Then it answered that copy without acknowledging it, and took one that acknowledges its own.
    """
    if graceful.kind != "simultaneous" or me.fin is None or peer.fin is None:
        return []
    taken = next((s for s in peer.fins if me.covers(s, me.fin)), None)
    if taken is None or not any(
        peer.fin.index < s.index < taken.index and not peer.covers(s, peer.fin)
        for s in me.me.segments
    ):
        return []
    return [Ending("active", time_wait=True)]


def _joined(me: End, peer: End, graceful: Ending) -> list[Ending]:
    """FINs crossed, and I acknowledged the peer's not before the ACK close behind it had come."""
    acker, fin = me.fin_acker, peer.fin
    if graceful.kind != "simultaneous" or fin is None or acker is None:
        return []
    mine = next((s for s in me.me.segments if peer.covers(s, fin)), None)
    if mine is None or mine.index < acker.index or acker.time_s - fin.time_s >= IN_OWN_HOST_S:
        return []
    return [Ending("active", time_wait=True)]


def _aborted(me: End, graceful: Ending) -> list[Ending]:
    abort = Ending("abort", UNSET | _if_two(graceful), _lenient(graceful), rst_sent=True)
    if me.repeats_unanswered or _waited_in_fin_wait2(me):
        return [abort, Ending("timeout", rst_sent=True)]
    return [abort]


def _waited_in_fin_wait2(me: End) -> bool:
    # Its FIN was acknowledged, and a timer may have lost patience.
    assert me.active_rst is not None
    acker = me.fin_acker
    return acker is not None and me.active_rst.time_s - acker.time_s > FIN_WAIT2_MIN_S


def _if_two(graceful: Ending) -> frozenset[str | None]:
    return graceful.handshake if graceful.kind != "half" else UNSET


def _lenient(graceful: Ending) -> frozenset[str | None]:
    return graceful.fin_ack | UNSET


def _reset_before(reply: Segment, me: End, peer: End) -> bool:
    """Tell whether a RST had ended my socket before the segment came that my RST answers."""
    return any(
        rst.index < reply.index and _takes(rst, me, peer) and _came_between(rst, reply, peer)
        for rst in peer.me.segments
        if rst.flags & RST
    )


def _came_between(rst: Segment, reply: Segment, peer: End) -> bool:
    # A RST is never answered: without another segment after it, the answer is to one before.
    return any(rst.index < s.index < reply.index for s in peer.me.segments if not s.flags & RST)


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
        one, other = (me, peer) if me.fin is not None else (peer, me)
        return Ending("half", fin_ack=carriers(one, other, segment_bytes))
    if me.covers(peer.fin, me.fin):
        kind, first, second = "active", me, peer
    elif peer.covers(me.fin, peer.fin):
        kind, first, second = "passive", peer, me
    else:
        either = frozenset({"pure", "data", None})
        return Ending("simultaneous", frozenset({"simultaneous"}), either, time_wait=True)
    carried_by = carriers(first, second, segment_bytes)
    shakes = frozenset("three_way" if by == "fin" else "four_way" for by in carried_by)
    time_wait = True if first is me else (None if _fin_may_have_waited(me, peer) else False)
    return Ending(kind, shakes, carried_by, time_wait)


def _fin_may_have_waited(me: End, peer: End) -> bool:
    """Tell whether my FIN may have been queued before the peer's came.

    Data held it, no room at the peer, or what had been sent just before, still in my own host.
    Then my socket went through CLOSING to TIME_WAIT, although nothing crossed on the wire.
    """
    assert me.fin is not None
    assert peer.fin is not None
    came = peer.fin.index
    sent = max((me.end(s) for s in me.me.segments if s.index < came), default=1)
    in_flight = me.me.relative(peer.fin.ack) < sent
    more = any(s.payload_bytes for s in me.me.segments if s.index > came)
    no_room = any(s.window == 0 for s in peer.me.segments if not s.flags & RST)
    return in_flight or more or no_room or _may_lie_in_own_queue(me, peer.fin)


def _may_lie_in_own_queue(me: End, peer_fin: Segment) -> bool:
    # Behind data that left a moment ago. In FIN_WAIT1 a FIN is acknowledged at once.
    before = (s for s in me.me.segments if s.payload_bytes and s.index < peer_fin.index)
    after = next((s for s in me.me.segments if s.index > peer_fin.index), None)
    just_sent = any(peer_fin.time_s - s.time_s < IN_OWN_HOST_S for s in before)
    at_once = after is not None and after.time_s - peer_fin.time_s < IN_OWN_HOST_S
    return just_sent and at_once and after is not me.fin
