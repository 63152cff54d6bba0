# SPDX-License-Identifier: Apache-2.0
"""What both ends of a random connection do, from a seed: the same seed and index, the same plan."""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.truth.sockets import Flavour

if TYPE_CHECKING:
    from collections.abc import Iterator


class Act(enum.Enum):
    """One thing an end does. The value is what a person reads; amounts are in brackets."""

    WAIT = "wait"  # microseconds
    MEET = "meet the other end"
    SEND = "send"  # bytes
    SEND_MORE = "send MSG_MORE"  # bytes
    RECV = "recv"  # bytes at most
    READ_TO_EOF = "read to the end"
    NODELAY = "TCP_NODELAY"
    CORK = "TCP_CORK"
    QUICKACK = "TCP_QUICKACK"
    SMALL_BUFFERS = "small buffers"  # bytes
    LINGER = "SO_LINGER"  # seconds
    SHUT_RD = "shutdown RD"
    SHUT_WR = "shutdown WR"
    SHUT_RDWR = "shutdown RDWR"
    DUP = "dup and close the first"
    DISCONNECT = "connect AF_UNSPEC"
    CLOSE = "close"
    SHARE_AND_EXIT = "share with a process, close, it exits"
    SHARE_AND_KILL = "share with a process, close, SIGKILL"
    HAND_OVER = "hand over a Unix socket, the receiver closes"
    LEAVE_IN_FLIGHT = "hand over a Unix socket nobody reads"


WITH_AMOUNT = frozenset(
    {Act.WAIT, Act.SEND, Act.SEND_MORE, Act.RECV, Act.SMALL_BUFFERS, Act.LINGER}
)
SIZES_BYTES = (1, 4, 4, 100, 100, 1_448, 5_000, 40_000, 200_000)
SMALL_BUFFER_BYTES = (2_304, 4_608, 16_384)
JIFFY_US = 4_000
LAST = {
    Act.CLOSE: 80,
    Act.DISCONNECT: 4,
    Act.SHARE_AND_EXIT: 2,
    Act.SHARE_AND_KILL: 2,
    Act.HAND_OVER: 3,
    Act.LEAVE_IN_FLIGHT: 3,
}


@dataclass(frozen=True, slots=True)
class Step:
    """An act and its amount, in the unit of the act."""

    act: Act
    amount: int = 0

    def __str__(self) -> str:
        """`send 100`."""
        return f"{self.act.value} {self.amount}" if self.act in WITH_AMOUNT else self.act.value


Script = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """One connection: what its client and its server do, each in a thread of its own."""

    seed: int
    index: int
    flavour: Flavour
    client: Script
    server: Script

    def lines(self) -> list[str]:
        """Return the plan for a person."""
        scripts = (("client", self.client), ("server", self.server))
        told = [f"  {end}: {', '.join(map(str, script))}" for end, script in scripts]
        return [f"plan: seed {self.seed} index {self.index} {self.flavour.name}", *told]


def plan_of(seed: int, index: int) -> Plan:
    """Return the plan of one connection."""
    rng = random.Random(f"{seed}/{index}")
    meet = rng.random() < 0.3
    flavour = rng.choice(list(Flavour))
    client, server = (tuple(_spread(rng, _script(rng, meet=meet))) for _ in range(2))
    return Plan(seed, index, flavour, client, server)


def _script(rng: random.Random, *, meet: bool) -> list[Step]:
    steps = _options(rng)
    steps += [_talk(rng) for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 4)))]
    if meet:
        steps.append(Step(Act.MEET))
    if rng.random() < 0.35:
        steps.append(Step(rng.choice((Act.SHUT_RD, Act.SHUT_WR, Act.SHUT_WR, Act.SHUT_RDWR))))
        steps += [_talk(rng) for _ in range(rng.choice((0, 0, 1, 2)))]
    if rng.random() < 0.45:
        steps.append(Step(Act.READ_TO_EOF))
    if rng.random() < 0.12:
        steps.append(Step(Act.LINGER, rng.choice((0, 0, 0, 1))))
    if rng.random() < 0.08:
        steps.append(Step(Act.DUP))
    (last,) = rng.choices(list(LAST), list(LAST.values()))
    if last is Act.DISCONNECT:
        steps.append(Step(last))
        last = Act.CLOSE
    return [*steps, Step(last)]


def _options(rng: random.Random) -> list[Step]:
    steps = []
    if rng.random() < 0.2:
        steps.append(Step(rng.choice((Act.NODELAY, Act.NODELAY, Act.CORK))))
    if rng.random() < 0.15:
        steps.append(Step(Act.SMALL_BUFFERS, rng.choice(SMALL_BUFFER_BYTES)))
    return steps


def _talk(rng: random.Random) -> Step:
    act = rng.choice(
        (Act.SEND, Act.SEND, Act.SEND, Act.RECV, Act.RECV, Act.SEND_MORE, Act.QUICKACK)
    )
    return Step(act, rng.choice(SIZES_BYTES) if act in WITH_AMOUNT else 0)


def _spread(rng: random.Random, steps: list[Step]) -> Iterator[Step]:
    """Put pauses between the steps: none, shorter than a jiffy, around the delayed ACK."""
    for step in steps:
        if rng.random() < 0.4:
            longest_us = rng.choice((0, 200, JIFFY_US, JIFFY_US, 20_000, 80_000))
            yield Step(Act.WAIT, rng.randint(0, longest_us))
        yield step
