# SPDX-License-Identifier: Apache-2.0
"""Ending sockets from outside: the named one alone, and a clear answer where it cannot be."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING

import pytest

from tests.conftest import skip_or_fail
from tests.truth.netns import namespace
from tests.truth.standing import proc_net_tcp
from tests.truth.wire import wait_until
from tracer.kernel.destroy import destroy, explain
from tracer.tcp import TcpState
from tracer.wire_census import decode_census

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.truth.netns import Namespace
    from tracer.census import Census
    from tracer.kernel.census import CensusSource

pytestmark = pytest.mark.kernel

Ends = tuple[socket.socket, socket.socket]


@contextlib.contextmanager
def half_closed(ns: Namespace, family: int, host: str) -> Iterator[tuple[Ends, Ends]]:
    """Two connections whose accepted ends wait in CLOSE_WAIT."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(ns.socket(family))
        listener.bind((host, 0))
        listener.listen()
        pairs = []
        for _ in range(2):
            client = stack.enter_context(ns.socket(family))
            client.connect(listener.getsockname())
            pairs.append((client, stack.enter_context(listener.accept()[0])))
            client.shutdown(socket.SHUT_WR)
        wait_until(lambda: proc_net_tcp(ns)[TcpState.CLOSE_WAIT] == 2, "two in CLOSE_WAIT")
        yield pairs[0], pairs[1]


def take(source: CensusSource, ns: Namespace) -> Census:
    """Return a census of one namespace."""
    return decode_census(source.take({ns.inum}, owners=False).data)


@pytest.mark.parametrize(
    ("family", "host"),
    [
        (socket.AF_INET, "127.0.0.1"),
        (socket.AF_INET6, "::1"),
        (socket.AF_INET6, "::ffff:127.0.0.1"),
    ],
)
def test_the_named_socket_alone_is_ended(
    census_source: CensusSource, family: int, host: str
) -> None:
    """Its process gets ECONNABORTED, its peer a RST; the other connection stays as it is.

    Reading goes on to give the end of the stream: SOCK_DONE comes before the error.
    """
    with namespace("destroy") as ns, half_closed(ns, family, host) as (doomed, spared):
        census = take(census_source, ns)
        ino = os.fstat(doomed[1].fileno()).st_ino
        rows = census.sockets[census.sockets["ino"] == ino]
        assert rows["state"].tolist() == [TcpState.CLOSE_WAIT]
        answer = destroy(rows, census.namespaces)
        if answer == [errno.EOPNOTSUPP]:
            skip_or_fail(explain(errno.EOPNOTSUPP))
        assert answer == [0]
        assert doomed[1].recv(1) == b""
        with pytest.raises(ConnectionAbortedError):
            doomed[1].send(b"x")
        with pytest.raises(ConnectionResetError):
            doomed[0].recv(1)
        spared[1].sendall(b"still here")
        assert spared[0].recv(16) == b"still here"
        assert destroy(rows, census.namespaces) == [errno.ENOENT]


def test_another_cookie_is_another_socket(census_source: CensusSource) -> None:
    """Addresses and ports that were taken again do not name it."""
    with namespace("destroy") as ns, half_closed(ns, socket.AF_INET, "127.0.0.1") as (one, _):
        census = take(census_source, ns)
        rows = census.sockets[census.sockets["state"] == TcpState.CLOSE_WAIT].copy()
        rows["cookie"] += 1000
        assert destroy(rows, census.namespaces) == [errno.ENOENT, errno.ENOENT]
        one[1].sendall(b"alive")
        assert one[0].recv(8) == b"alive"


def test_a_namespace_of_another_census_is_not_entered(census_source: CensusSource) -> None:
    """Without its facts nothing is done."""
    with namespace("destroy") as ns, half_closed(ns, socket.AF_INET, "127.0.0.1"):
        census = take(census_source, ns)
        assert set(destroy(census.sockets, {})) == {errno.ENOENT}


def test_without_the_right_it_says_so(census_source: CensusSource) -> None:
    """A child without CAP_NET_ADMIN is told EPERM."""
    with namespace("destroy") as ns, half_closed(ns, socket.AF_INET, "127.0.0.1") as (one, _):
        census = take(census_source, ns)
        rows = census.sockets[census.sockets["state"] == TcpState.CLOSE_WAIT]
        pid = os.fork()
        if not pid:
            os.setresuid(65534, 65534, 65534)
            os._exit(destroy(rows[:1], census.namespaces)[0])
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == errno.EPERM
        assert "CAP_NET_ADMIN" in explain(errno.EPERM)
        one[1].sendall(b"alive")
        assert one[0].recv(8) == b"alive"
