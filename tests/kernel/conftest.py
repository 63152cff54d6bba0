# SPDX-License-Identifier: Apache-2.0
"""Fixtures: the running tracer and the networks, one of each per module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conftest import skip_or_fail
from tests.truth.netns import loopback, veth_pair
from tests.truth.watch import HostLacksError, Watch, only_in
from tests.truth.wire import wired_pair
from tracer.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.truth.netns import Net
    from tests.truth.wire import WiredNet
    from tracer.kernel.census import CensusSource
    from tracer.kernel.source import KernelSource


@pytest.fixture(scope="module")
def tracer_watch(
    loopback_net: Net,
    veth_net: Net,
    wired_net: WiredNet,
    load_net: Net,
) -> Iterator[Watch]:
    """A running `watch --json` of the test's own namespaces; it must end with 0 on SIGINT.

    It traces the whole host like any other, and is asked to show only what the tests made:
    what else happens on the host must not fill the pipe.
    """
    with watch_of(loopback_net, veth_net, wired_net.net, load_net) as watch:
        yield watch


def watch_of(*nets: Net) -> Watch:
    """Start a `watch` of these networks, or skip where this host lacks something."""
    try:
        return Watch(only_in(frozenset[int]().union(*(net.inums for net in nets))))
    except HostLacksError as error:
        skip_or_fail(str(error))
        raise


def attached() -> KernelSource:
    """Attach the programs, or skip where this host lacks something."""
    from tracer.kernel.source import KernelSource  # noqa: PLC0415 - numpy and the loader

    try:
        return KernelSource(KernelSource.load())
    except HostError as error:
        skip_or_fail(str(error))
        raise


@pytest.fixture(scope="module")
def census_source() -> Iterator[CensusSource]:
    """Censuses of the running kernel, taken the best way it allows."""
    from tracer.kernel.census import CensusSource  # noqa: PLC0415 - numpy and the loader

    with CensusSource(CensusSource.load()) as source:
        yield source


@pytest.fixture(scope="module")
def loopback_net() -> Iterator[Net]:
    """One namespace, both ends on lo."""
    with loopback() as net:
        yield net


@pytest.fixture(scope="module")
def load_net() -> Iterator[Net]:
    """A namespace for the connections that are only there to keep the host busy."""
    with loopback("load") as net:
        yield net


@pytest.fixture(scope="module")
def veth_net() -> Iterator[Net]:
    """Two namespaces joined by veth."""
    with veth_pair() as net:
        yield net


@pytest.fixture(scope="module")
def wired_net() -> Iterator[WiredNet]:
    """Two namespaces joined by a wire under control."""
    with wired_pair() as wired:
        yield wired
