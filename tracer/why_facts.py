# SPDX-License-Identifier: Apache-2.0
"""What a `why` sentence may speak of, and the phrases all sentences share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from tracer.tcp import AckFate, How

if TYPE_CHECKING:
    from tracer.verdict import Reason


class Facts(NamedTuple):
    """What a sentence may speak of. None: not known."""

    reason: Reason
    how: How = How.NONE
    signal_or_code: int = 0
    old_state: str = "ESTABLISHED"
    rst_sent: bool = False
    rst_reason: str | None = None
    err: str | None = None
    sigpipe: bool | None = None
    time_wait: bool | None = None
    peer_fin_seen: bool = False
    fin_repeated: bool = False
    close_wait_us: int | None = None
    ato_us: int | None = None
    ack_fate: AckFate = AckFate.NONE
    ack_after_us: int | None = None
    lifetime_us: int | None = None
    rx_bytes: int = 0
    to_itself: bool = False
    unread_bytes: int = 0
    unacked_bytes: int = 0
    unsent_bytes: int = 0
    data_lost: bool | None = None
    unsent_at_fin_bytes: int = 0
    user_timeout_ms: int = 0
    retransmits: int = 0
    probes_out: int = 0
    segments: int = 0
    """Segments that left after our FIN was queued (passive), or came until it was acked."""


Sentence: TypeAlias = Callable[[Facts], str]


def duration(us: int) -> str:
    """Return microseconds for a person: 34 µs, 1.2 ms, 40 ms, 3.4 s, 7 min, 26 h."""
    if us < 1_000:
        return f"{us} µs"
    for limit, size, unit in (
        (1_000_000, 1_000, "ms"),
        (120_000_000, 1_000_000, "s"),
        (7_200_000_000, 60_000_000, "min"),
    ):
        if us < limit:
            return f"{_short(us / size)} {unit}"
    return f"{_short(us / 3_600_000_000)} h"


def _short(value: float) -> str:
    # One decimal below ten, none where it is zero; never rounded up to a longer time.
    tenths = int(value * 10)
    return f"{tenths / 10:g}" if tenths < 100 else str(int(value))


def plural(count: int, thing: str) -> str:
    """Return '1 byte', '2 bytes'."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


_WHO: Final = {
    How.NONE: "our side closed",
    How.CLOSE: "the application closed",
    How.SHUTDOWN: "the application shut down its sending side",
    How.EXIT: "the process exited",
    How.SIGNAL: "signal {} killed the process",
    How.KERNEL: "the kernel closed",
}


def who(f: Facts) -> str:
    """Return who ended our side, as a clause with a verb in the past."""
    if f.how is How.EXIT and f.signal_or_code:
        return f"the process exited with status {f.signal_or_code}"
    return _WHO[f.how].format(f.signal_or_code)


def always(sentence: str) -> Sentence:
    """Return a sentence without figures."""
    return lambda _: sentence
