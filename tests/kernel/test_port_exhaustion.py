# SPDX-License-Identifier: Apache-2.0
"""connect() without a free port: every EADDRNOTAVAIL is a record, and the census shows why."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING

import pytest

from tests.conftest import skip_or_fail
from tests.truth.netns import namespace
from tests.truth.watch import HostLacksError, Watch
from tracer.kernel.census import CensusSource
from tracer.wire_census import decode_census

if TYPE_CHECKING:
    from tests.truth.netns import Namespace

pytestmark = pytest.mark.kernel

PORTS = 4
FAILURES = 23
BOUND_PORT = 50000
SERVICE = ("127.0.0.1", 80)


def refused(ns: Namespace, stack: contextlib.ExitStack, port: int | None = None) -> bool:
    """Connect once more; whether there was no port for it."""
    sock = stack.enter_context(ns.socket())
    if port:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
    code = sock.connect_ex(SERVICE)
    assert code in (0, errno.EADDRNOTAVAIL)
    return code != 0


def test_every_failure_for_want_of_a_port_is_told() -> None:
    """By whom and for which destination; lport 0: none was free, else the bound one was taken."""
    with contextlib.ExitStack() as stack:
        ns = stack.enter_context(namespace("exhaust"))
        ns.sysctl("ipv4/ip_local_port_range", f"40000 {40000 + PORTS - 1}")
        try:
            watch = Watch(["--netns", str(ns.inum)])
        except HostLacksError as error:
            skip_or_fail(str(error))
            raise
        stack.callback(watch.stop)
        listener = stack.enter_context(ns.socket())
        listener.bind(SERVICE)
        listener.listen(2 * PORTS)
        made = [refused(ns, stack) for _ in range(PORTS + FAILURES)]
        assert made == [False] * PORTS + [True] * FAILURES
        assert [refused(ns, stack, BOUND_PORT) for _ in range(2)] == [False, True]
        records = watch.wait_records({ns.inum}, 0, FAILURES + 1)
        assert sorted(record["lport"] for record in records) == [0] * FAILURES + [BOUND_PORT]
        for record in records:
            assert record["kind"] == "attempt_failed"
            assert record["why"].startswith("the SYN never left")
            assert (record["raddr"], record["rport"]) == SERVICE
            assert record["opener"]["pid"] == os.getpid()
        with CensusSource(CensusSource.load()) as source:
            ports = decode_census(source.take({ns.inum}, owners=False).data).ports
        outbound = ports[ports["inbound"] == 0]
        assert outbound["in_use"].tolist() == [PORTS + 1]
        assert outbound["in_range"].tolist() == [PORTS]
