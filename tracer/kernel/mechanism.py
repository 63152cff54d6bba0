# SPDX-License-Identifier: Apache-2.0
"""What both ways to look at a host's sockets are asked, and what they answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tracer.census import Rows
    from tracer.tcp import TcpState

__all__ = ("OWNERS_MAX", "ROWS_MAX", "Held", "Mechanism", "Walk", "WalkRequest")

ROWS_MAX: Final = 1 << 16
"""Sockets one census tells one by one, listening ones apart; all are counted."""
OWNERS_MAX: Final = 2 * ROWS_MAX
"""Descriptors it tells one by one: of these, of listening ones, of sockets in CLOSE."""


class WalkRequest(NamedTuple):
    """Which namespace the calling thread is in, and what of its sockets is asked for."""

    netns: int
    ports: tuple[int, int] | None
    """Its ip_local_port_range."""
    rows: tuple[TcpState, ...]
    """Whose full sockets become rows; those of all others are counted only."""
    there: int | None
    """How many full sockets it has, where that can be known."""
    room: int
    """How many rows at most, listening ones apart."""


class Walk(NamedTuple):
    """What one walk over one namespace found."""

    states: Rows
    ports: Rows
    sockets: bytes | bytearray
    rows_left_out: int = 0
    states_left_out: int = 0
    ports_left_out: int = 0


class Held(NamedTuple):
    """What a look at all descriptors found."""

    owners: Rows
    """OWNER_ROW."""
    users: Rows
    homes: Mapping[int, str]
    """A path to a socket of each namespace that has one."""
    rows_left_out: int = 0
    users_left_out: int = 0


class Mechanism(Protocol):
    """One way to look at sockets; both are used from one thread at a time."""

    name: str

    def walk(self, asked: WalkRequest) -> Walk:
        """Look at all sockets of the namespace the calling thread is in. Raises OSError."""

    def owners(self, rows: Iterable[TcpState], users: Iterable[TcpState]) -> Held:
        """Look at all descriptors of all processes: show those of `rows`, count `users`.

        Raises OSError.
        """

    def close(self) -> None:
        """Let go."""
