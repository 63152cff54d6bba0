# SPDX-License-Identifier: Apache-2.0
"""Beside censuses: follow closes for what only they tell.

A connection that is followed knows when its CLOSE_WAIT began, and censuses ask it; a connect()
that found no local port is a close of its own; where a hook sees accept(), closes tell how long
it took.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracer import runs
from tracer.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack
    from typing import TypeAlias

    import numpy as np
    from numpy.typing import NDArray

    from tracer.kernel.census import CensusSource
    from tracer.kernel.hooks import Hook
    from tracer.kernel.origins import OriginSource
    from tracer.kernel.source import KernelSource
    from tracer.wire import Records

    Counted: TypeAlias = Callable[[Records, NDArray[np.uint8]], object]


class Follower:
    """Follows closes from now on; `fetch` is to be called often, and never blocks."""

    def __init__(self, source: KernelSource, counted: Counted | None) -> None:
        """Judge closes for `counted`; without it they are let go unread."""
        self._source, self._session = source, None
        if counted is not None:
            from tracer.session import Session  # noqa: PLC0415

            self._session = Session(source.host, counted=counted)

    def census(self) -> CensusSource:
        """Return the source of censuses that the same loader has loaded."""
        from tracer.kernel.census import CensusSource  # noqa: PLC0415

        return CensusSource(self._source.loaded)

    def hooks(self, hook: Hook) -> bool:
        """Say whether this kernel lets functions be hooked for that."""
        from tracer.kernel import hooks  # noqa: PLC0415

        return hooks.in_force(self._source.manifest, hook)

    def origins(self) -> OriginSource:
        """Return where sockets came from; only where `attach` was asked for it."""
        from tracer.kernel.origins import OriginSource  # noqa: PLC0415 - ELF files

        return OriginSource(self._source.loaded)

    def fetch(self) -> None:
        """Take what has come."""
        for batch in self._source.take():
            if self._session is not None:
                self._session.feed(batch)


def attach(
    stack: ExitStack, without: str, counted: Counted | None = None, *, origins: bool = False
) -> Follower | None:
    """Return this host's follower, closed with the stack; `origins`: it notes user stacks, too.

    Where the host refuses it None, and on stderr why, and what is missed `without` it.
    """
    from tracer.kernel.census import CensusSource  # noqa: PLC0415
    from tracer.kernel.source import KernelSource  # noqa: PLC0415

    loader = KernelSource.load(census=CensusSource.options(), origins=origins)
    try:
        source = stack.enter_context(KernelSource(loader))
    except HostError as error:
        runs.tell(f"{without}: {error}")
        return None
    return Follower(source, counted)
