# SPDX-License-Identifier: Apache-2.0
"""Put the parts together for the views of the present: census, detector, table or JSON lines."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tracer import memory, runs_beside, runs_looks
from tracer.tcp import TcpState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from typing import TypeVar

    import numpy as np
    from numpy.typing import NDArray

    from tracer.census import Census
    from tracer.detectors.census_filter import CensusFilter
    from tracer.detectors.port_failures import PortFailure, PortFailures
    from tracer.kernel.census import CensusSource
    from tracer.outputs.screen import Screen
    from tracer.runs_beside import Counted, Follower
    from tracer.wire import Records

    Finding = TypeVar("Finding")
    # What a census comes to: lines no wider than asked for, or JSON lines.
    Form = Callable[[Census, int | None], Iterable[str]]

MS_PER_S: Final = 1_000


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line asked for, as plain values."""

    filters: dict[str, Any] = field(default_factory=dict)
    netns: tuple[int, ...] = ()
    sort: str = "severity"
    limit: int = 20
    over_s: float = 0.0
    watch_s: float | None = None
    older_s: float = 10.0
    sockets: int = 0
    stacks: bool = False
    as_json: bool = False
    color: bool = False

    @property
    def several(self) -> bool:
        """Whether there is more than one look."""
        return self.over_s > 0 or self.watch_s is not None


def ports(wishes: Wishes) -> None:
    """Show where local ports run out, and who owns the TIME_WAITs. Raises HostError.

    More than one look also traces: connect() that finds no port is counted.
    """
    with ExitStack() as stack:
        from tracer.detectors.port_failures import PortFailures  # noqa: PLC0415
        from tracer.detectors.port_openers import PortOpeners  # noqa: PLC0415

        missed, openers = PortFailures(), PortOpeners()

        def closed(closes: Records, reasons: NDArray[np.uint8]) -> None:
            missed.add(closes, reasons)
            openers.add(closes)

        without = "connect() without a port is not counted, nor who opened connections"
        source, beside = look_beside(stack, wishes, without, closed)
        from tracer.detectors.local_ports import LocalPorts  # noqa: PLC0415
        from tracer.detectors.time_wait import TimeWait  # noqa: PLC0415
        from tracer.outputs import ports as form  # noqa: PLC0415

        local, waiting, asked = LocalPorts(openers), TimeWait(held=True), asked_for(wishes)

        def show(census: Census, width: int | None) -> Iterable[str]:
            mine = asked.narrow(census)
            owners, totals = waiting.look(mine)
            served = [one for one in owners if one.lport is not None]
            destinations = local.look(mine)
            found = form.Ports(
                chosen=first(destinations, form.SORTS[wishes.sort], wishes),
                served=served[: wishes.limit],
                totals=totals,
                failures=_failures(missed, asked, census) if beside else None,
                left_out={
                    "openers of connections": openers.left_out,
                    "failures of connect()": missed.left_out,
                },
                not_shown={
                    "destination": max(0, len(destinations) - wishes.limit),
                    "service": max(0, len(served) - wishes.limit),
                },
            )
            if width is None:
                return form.as_json(found, census)
            return form.as_lines(found, census, width, color=wishes.color)

        follow(source, wishes, show, (TcpState.LISTEN,), users=True, beside=beside)


# Whatever namespaces the census is of: a namespace that ended has no failure worth a line.
def _failures(missed: PortFailures, asked: CensusFilter, census: Census) -> tuple[PortFailure, ...]:
    return tuple(
        one for one in missed.found() if one.netns in census.namespaces and asked.admits(one)
    )


def listeners(wishes: Wishes) -> None:
    """Show the queues of listening sockets. Raises HostError.

    More than one look also traces: how long connections wait for accept(), where a hook sees it.
    """
    with ExitStack() as stack:
        from tracer.detectors.accept_waits import AcceptWaits  # noqa: PLC0415

        accepted = AcceptWaits()
        without = "how long connections wait for accept() is not known"
        source, beside = look_beside(stack, wishes, without, accepted.add)
        from tracer.detectors.listen_overflow import ListenOverflow  # noqa: PLC0415
        from tracer.kernel import hooks  # noqa: PLC0415
        from tracer.outputs import listeners as form  # noqa: PLC0415

        detector, asked = ListenOverflow(), asked_for(wishes)
        seen = beside is not None and beside.hooks(hooks.ACCEPTED)

        def show(census: Census, width: int | None) -> Iterable[str]:
            left_out = {"waits for accept()": accepted.left_out}
            waits = form.Waits(accepted.found(), left_out) if seen else form.Waits()
            # Counters are split among all listeners, so all are judged and some shown.
            report = detector.look(census)
            cookies = frozenset(census.sockets["cookie"][asked.mask(census)].tolist())
            mine = [finding for finding in report.findings if finding.cookie in cookies]
            chosen = first(mine, form.SORTS[wishes.sort], wishes)
            if width is None:
                return form.as_json(report, chosen, census, waits)
            return form.as_lines(report, chosen, census, waits, width, color=wishes.color)

        follow(source, wishes, show, (TcpState.LISTEN,), beside=beside)


def states(wishes: Wishes) -> None:
    """Show how many sockets are in which state. Raises HostError."""
    with runs_looks.attach() as source:
        from tracer.detectors.socket_states import socket_states  # noqa: PLC0415
        from tracer.outputs import census as form  # noqa: PLC0415

        def show(census: Census, width: int | None) -> Iterable[str]:
            counted, order = socket_states(census), (wishes.sort, wishes.limit)
            if width is None:
                return form.as_json(counted, census, *order)
            return form.as_lines(counted, census, width, *order, color=wishes.color)

        follow(source, wishes, show, (TcpState.LISTEN,))


def look_beside(
    stack: ExitStack,
    wishes: Wishes,
    without: str,
    counted: Counted | None = None,
    *,
    origins: bool = False,
) -> tuple[CensusSource, Follower | None]:
    """Return the source of censuses, and the follower of closes where there is time for some.

    Both are closed with the stack. `without`: what is missed where closes cannot be followed.
    """
    beside = None
    if wishes.several:
        beside = runs_beside.attach(stack, without, counted, origins=origins)
    return stack.enter_context(beside.census() if beside else runs_looks.attach()), beside


def follow(
    source: CensusSource,
    wishes: Wishes,
    show: Form,
    rows: Collection[TcpState],
    *,
    users: bool = False,
    beside: Follower | None = None,
) -> None:
    """Take censuses as wished and show each. Raises HostError."""
    from tracer.outputs.screen import Screen  # noqa: PLC0415
    from tracer.session_live import Stop  # noqa: PLC0415

    memory.keep_little()
    screen = Screen(sys.stdout, repaint=wishes.watch_s is not None)
    with Stop() as stop:
        looks = runs_looks.censuses(source, wishes, stop, rows=rows, users=users, beside=beside)
        for census, shown in looks:
            made = show(census, None if wishes.as_json else screen.width)
            if shown:
                _write(screen, made, wishes)
            del census, made


def _write(screen: Screen, made: Iterable[str], wishes: Wishes) -> None:
    if wishes.as_json:
        sys.stdout.write("".join(made))
        sys.stdout.flush()
    else:
        screen.show(list(made))


def asked_for(wishes: Wishes) -> CensusFilter:
    """Return which sockets are meant."""
    from tracer.detectors.census_filter import CensusFilter  # noqa: PLC0415

    return CensusFilter(**wishes.filters)


# Detectors return the gravest first; a stable sort keeps that among equals.
def first(
    findings: Sequence[Finding], key: Callable[[Finding], float], wishes: Wishes
) -> list[Finding]:
    """Return those to be shown, in the order asked for."""
    return sorted(findings, key=key)[: wishes.limit]
