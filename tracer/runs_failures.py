# SPDX-License-Identifier: Apache-2.0
"""Beside censuses: trace closes for those of connect() that found no local port."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracer import runs
from tracer.errors import HostError

if TYPE_CHECKING:
    from contextlib import ExitStack

    from tracer.detectors.port_failures import PortFailure
    from tracer.kernel.census import CensusSource
    from tracer.kernel.source import KernelSource


class FailureTracer:
    """Follows closes from now on; `fetch` is to be called often, and never blocks."""

    def __init__(self, source: KernelSource) -> None:
        from tracer.detectors.port_failures import PortFailures  # noqa: PLC0415
        from tracer.session import Session  # noqa: PLC0415

        self._source, self._failures = source, PortFailures()
        self._session = Session(source.host, counted=self._failures.add)

    def census(self) -> CensusSource:
        """Return the source of censuses that the same loader has loaded."""
        from tracer.kernel.census import CensusSource  # noqa: PLC0415

        return CensusSource(self._source.loaded)

    def fetch(self) -> None:
        """Judge what has come."""
        batch = self._source.drain()
        if batch is not None:
            self._session.feed(batch)

    def failures(self) -> tuple[PortFailure, ...]:
        """Return what has failed so far, the most frequent first."""
        self.fetch()
        return self._failures.found()


def attach(stack: ExitStack) -> FailureTracer | None:
    """Return this host's tracer, closed with the stack; None, and why on stderr, without."""
    from tracer.kernel.census import CensusSource  # noqa: PLC0415
    from tracer.kernel.source import KernelSource  # noqa: PLC0415

    loader = KernelSource.load(census=CensusSource.options())
    try:
        source = stack.enter_context(KernelSource(loader))
    except HostError as error:
        runs.tell(f"connect() without a port is not counted: {error}")
        return None
    return FailureTracer(source)
