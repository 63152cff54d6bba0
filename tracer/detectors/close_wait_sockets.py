# SPDX-License-Identifier: Apache-2.0
"""Single sockets in CLOSE_WAIT, the oldest of a group: what to look for in the process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracer.detectors.close_wait_verdict import Use
from tracer.detectors.rows import text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracer.detectors.close_wait_groups import Groups


@dataclass(frozen=True, slots=True)
class CloseWaitSocket:
    """One socket; `fd` is the first holder's, None while it waits for accept()."""

    cookie: int
    ino: int
    fd: int | None
    laddr: str
    lport: int
    raddr: str
    rport: int
    accepted: bool
    age_ms: int
    age_at_most_ms: int | None
    """None: it was there at the first look."""
    unread_bytes: int
    """Without the end."""
    eof_read: bool


def oldest(groups: Groups, group: int, most: int) -> tuple[CloseWaitSocket, ...]:
    """Return so many sockets of a group at most, the oldest first."""
    return tuple(_sockets(groups, group, most))


def _sockets(groups: Groups, group: int, most: int) -> Iterator[CloseWaitSocket]:
    for row, age_ms, at_most_ms, use in groups.oldest(group, most):
        family, unread = int(row["family"]), int(row["unread"])
        yield CloseWaitSocket(
            cookie=int(row["cookie"]),
            ino=int(row["ino"]),
            fd=groups.holding.fd_of(int(row["ino"])),
            laddr=text_of(row["laddr"], family),
            lport=int(row["lport"]),
            raddr=text_of(row["raddr"], family),
            rport=int(row["rport"]),
            accepted=use != Use.QUEUED,
            age_ms=age_ms,
            age_at_most_ms=None if at_most_ms < 0 else at_most_ms,
            unread_bytes=max(0, unread - 1),
            eof_read=unread == 0,
        )
