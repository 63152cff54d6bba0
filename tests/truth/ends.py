# SPDX-License-Identifier: Apache-2.0
"""One end of a captured connection: what it sent, numbered, and what that tells."""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from tests.truth.packets import ACK, FIN, RST, SYN

if TYPE_CHECKING:
    from tests.truth.packets import Segment, Sent


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
    def sent_syn(self) -> bool:
        """Whether I asked for the connection."""
        return any(s.flags & (SYN | ACK) == SYN for s in self.me.segments)

    @cached_property
    def fins(self) -> list[Segment]:
        """All copies of my FIN."""
        return [s for s in self.me.segments if s.flags & FIN]

    @cached_property
    def fin(self) -> Segment | None:
        """The first copy of my FIN."""
        return next(iter(self.fins), None)

    @cached_property
    def stream_bytes(self) -> int:
        """Unique payload bytes I sent."""
        ends = [self.start(s) + s.payload_bytes for s in self._in_stream() if s.payload_bytes]
        return max(ends, default=1) - 1

    def _in_stream(self) -> list[Segment]:
        return [s for s in self.me.segments if not s.flags & RST]

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

    def is_first_copy(self, segment: Segment) -> bool:
        """Tell whether nothing captured before has this place in my stream and payload."""
        return not any(
            s.payload_bytes and s.seq == segment.seq and s.index < segment.index
            for s in self.me.segments
        )
