# SPDX-License-Identifier: Apache-2.0
"""Put the parts together for `leaks`: censuses, their judge, and where suspects came from."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from tracer import runs, runs_census
from tracer.errors import UsageError
from tracer.tcp import TcpState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tracer.census import Census
    from tracer.detectors.close_wait_leak import CloseWaitFinding
    from tracer.kernel.origins import OriginSource
    from tracer.origins import Origins
    from tracer.runs_beside import Follower

MS_PER_S: Final = 1_000
ASKED_MAX: Final = 1_000
"""Sockets of a group whose stacks are asked for, the newest: the oldest are older than we are."""


def leaks(wishes: runs_census.Wishes) -> None:
    """Show who leaks CLOSE_WAIT. Raises HostError, UsageError.

    More than one look also traces: what enters CLOSE_WAIT meanwhile has an exact age.
    """
    if wishes.stacks and not wishes.several:
        raise UsageError(
            "--stacks needs --over or --watch: a stack is noted when a socket is connected or "
            "accepted while we look"
        )
    with ExitStack() as stack:
        without = "ages in CLOSE_WAIT are lower bounds"
        source, beside = runs_census.look_beside(stack, wishes, without, origins=wishes.stacks)
        from tracer.detectors.close_wait_leak import CloseWaitLeak  # noqa: PLC0415
        from tracer.outputs import leaks as form  # noqa: PLC0415

        stacks = _stacks(stack, beside) if wishes.stacks else None
        detector = CloseWaitLeak(
            int(wishes.older_s * MS_PER_S),
            listed=wishes.sockets,
            cookies=ASKED_MAX if stacks else 0,
        )
        narrow = runs_census.asked_for(wishes).narrow

        def show(census: Census, width: int | None) -> Iterable[str]:
            report = detector.look(narrow(census))
            chosen = runs_census.first(report.findings, form.SORTS[wishes.sort], wishes)
            left_out = {"stacks of sockets": stacks.left_out} if stacks else {}
            found = form.Leaks(report, chosen, _origins(stacks, chosen), left_out)
            if width is None:
                return form.as_json(found, census)
            return form.as_lines(found, census, width, color=wishes.color)

        rows = (TcpState.LISTEN, TcpState.CLOSE_WAIT)
        runs_census.follow(source, wishes, show, rows, beside=beside)


# Why there are none is told once, on stderr.
def _stacks(stack: ExitStack, beside: Follower | None) -> OriginSource | None:
    if beside is None:  # and that was told
        return None
    source = beside.origins()
    stack.callback(source.close)
    if source.refusal is not None:
        runs.tell(f"no stacks: {source.refusal}")
        return None
    return source


# Asked at every look, also where nothing is shown: a process may be gone at the next.
def _origins(
    stacks: OriginSource | None, chosen: Sequence[CloseWaitFinding]
) -> Sequence[Origins | None]:
    if stacks is None:
        return [None] * len(chosen)
    found = stacks.of([finding.cookies for finding in chosen])
    return [
        origins if finding.cookies else None for finding, origins in zip(chosen, found, strict=True)
    ]
