# SPDX-License-Identifier: Apache-2.0
"""Where sockets came from: the user stacks that connected or accepted them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class How(IntEnum):
    """enum origin_how of bpf/origins.h."""

    CONNECTED = 0
    ACCEPTED = 1


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a stack. Names are anybody's: they are bounded, and escaped where shown."""

    symbol: str | None
    """The function; None: the module does not name it."""
    module: str | None
    """The file it was mapped from, without folders; None: of no file."""
    offset: int
    """Into the function, else into the module, else the address itself."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A stack, and how many sockets came from it."""

    how: How
    pid: int
    comm: bytes
    count: int
    frames: tuple[Frame, ...]
    """The innermost first; of a process that was gone before it could be asked, addresses only."""
    gone: bool


@dataclass(frozen=True, slots=True)
class Origins:
    """Where the sockets of a group came from, the most frequent stacks first."""

    stacks: tuple[Origin, ...]
    asked: int
    """Of so many sockets."""
    unknown: int
    """That many of them have no stack: they are older than we are, or there was no room."""
