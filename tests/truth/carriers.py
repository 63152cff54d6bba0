# SPDX-License-Identifier: Apache-2.0
"""What carried the ACK of the first FIN, by the packets: see judge.py for the rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.truth.packets import FIN, RST, SYN

if TYPE_CHECKING:
    from tests.truth.ends import End
    from tests.truth.packets import Segment

AT_ONCE_S = 2e-6


def carriers(first: End, second: End, segment_bytes: int) -> frozenset[str | None]:
    """Return what can have carried the ACK of the first FIN: more than one only if overtaken.

    A segment that came later was made before when its place in the stream is not behind. Two that
    came at once came on two CPUs, and the socket may have had either first.
    """
    acker = first.fin_acker
    if acker is None or first.fin is None:
        return frozenset({None})
    others = (
        s
        for s in second.me.segments
        if s.index > acker.index
        and not s.flags & (SYN | RST)
        and first.covers(s, first.fin)
        and (_made_before(s, acker, second) or s.time_s - acker.time_s < AT_ONCE_S)
    )
    return frozenset(_carrier(s, segment_bytes) for s in (acker, *others))


def _made_before(segment: Segment, acker: Segment, end: End) -> bool:
    if segment.flags & FIN or end.end(segment) > end.start(acker):
        return False
    return not segment.payload_bytes or end.is_first_copy(segment)


def _carrier(acker: Segment, segment_bytes: int) -> str:
    if acker.flags & FIN and acker.payload_bytes <= segment_bytes:
        return "fin"
    return "data" if acker.payload_bytes else "pure"
