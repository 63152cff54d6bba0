# SPDX-License-Identifier: Apache-2.0
"""End sockets that were left over: show, ask, look again, then ask the kernel for each."""

from __future__ import annotations

import errno
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tracer import runs_looks
from tracer.errors import UsageError
from tracer.outputs.text import plural
from tracer.tcp import TcpState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol

    from tracer.census import Census, NetnsFacts, Rows
    from tracer.kernel.census import CensusSource

    class Destroy(Protocol):
        """Ends sockets from outside."""

        def __call__(self, sockets: Rows, namespaces: Mapping[int, NetnsFacts]) -> list[int]:
            """Return an errno for each, 0 where it was ended."""


MS_PER_S: Final = 1_000
DRY: Final = "Nothing was done; --execute asks, then ends them."


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line asked for, as plain values."""

    states: tuple[TcpState, ...]
    older_s: float
    filters: dict[str, Any] = field(default_factory=dict)
    netns: tuple[int, ...] = ()
    execute: bool = False
    limit: int = 20
    as_json: bool = False
    color: bool = False


def kill(wishes: Wishes, ask: Callable[[str], bool]) -> int:
    """Show what is chosen; with `execute`, and when `ask` agrees, end it. Return the exit code.

    Raises UsageError without any filter, and HostError.
    """
    if not wishes.netns and not any(wishes.filters.values()):
        raise UsageError("kill ends only what is named: give --pid, --comm, --port, --raddr …")
    with runs_looks.attach() as source:
        census, chosen = _choose(source, wishes)
        _tell_accounts(census)
        if not len(chosen):
            _tell(_none(wishes))
            return 0
        _show(census, chosen, wishes)
        if not wishes.execute:
            _tell(DRY)
            return 0
        if not ask(f"End {plural(len(chosen), 'socket')}?"):
            _tell("Nothing was done.")
            return 0
        results = _end(source, chosen, wishes)
    return _report(census, chosen, results, wishes)


def _choose(source: CensusSource, wishes: Wishes) -> tuple[Census, Rows]:
    from tracer.detectors.census_filter import CensusFilter  # noqa: PLC0415
    from tracer.detectors.stale import stale  # noqa: PLC0415

    census = runs_looks.take(source, wishes.netns, (TcpState.LISTEN, *wishes.states))
    older_ms = int(wishes.older_s * MS_PER_S)
    return census, stale(census, CensusFilter(**wishes.filters), wishes.states, older_ms)


# Between the look and the answer they may have gone on: only what is as it was is ended.
def _end(source: CensusSource, chosen: Rows, wishes: Wishes) -> dict[int, int]:
    from tracer.detectors.stale import still  # noqa: PLC0415
    from tracer.kernel.destroy import destroy  # noqa: PLC0415

    census, now = _choose(source, wishes)
    agreed = still(chosen, now)
    ending: Destroy = destroy
    codes = ending(agreed, census.namespaces)
    return dict(zip(agreed["cookie"].tolist(), codes, strict=True))


def _show(census: Census, chosen: Rows, wishes: Wishes) -> None:
    from tracer.kernel.destroy import explain  # noqa: PLC0415
    from tracer.outputs import killing  # noqa: PLC0415
    from tracer.outputs.screen import Screen  # noqa: PLC0415

    if not wishes.as_json:
        screen = Screen(sys.stdout, repaint=False)
        shown = killing.as_lines(chosen, census, wishes.limit, screen.width, color=wishes.color)
        screen.show(shown)
    elif not wishes.execute:
        sys.stdout.writelines(killing.as_json(chosen, census, None, explain))
        sys.stdout.flush()


def _report(census: Census, chosen: Rows, results: Mapping[int, int], wishes: Wishes) -> int:
    from tracer.kernel.destroy import explain  # noqa: PLC0415
    from tracer.outputs import killing  # noqa: PLC0415

    if wishes.as_json:
        sys.stdout.writelines(killing.as_json(chosen, census, results, explain))
        sys.stdout.flush()
    for line in killing.outcome(chosen, results, explain):
        _tell(line)
    return int(any(code not in (0, errno.ENOENT) for code in results.values()))


def _tell_accounts(census: Census) -> None:
    from tracer.outputs import findings  # noqa: PLC0415

    for line in findings.accounts(census):
        _tell(line)


def _none(wishes: Wishes) -> str:
    states = " or ".join(state.name for state in wishes.states)
    return f"Nothing to end: no {states} that was asked for is silent for {wishes.older_s:g} s."


# What happens to a host is told on stderr: stdout is the list.
def _tell(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
