# SPDX-License-Identifier: Apache-2.0
"""Record the censuses again: `python -m tests.golden.censuses.make`, as root.

Needed when CENSUS_VERSION changes. A namespace per scene, five looks within twelve seconds; what
tells of the machine itself (paths, cgroups) is taken out.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tests.golden.censuses.replay import RECORDED
from tests.kernel.leaking import Service
from tests.truth.netns import namespace
from tracer.batch import Batch, BatchKind
from tracer.kernel.census import CensusSource
from tracer.kernel.census_bytes import encode_census
from tracer.recording import RecordingWriter
from tracer.wire_census import decode_census

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import ExitStack

    from tests.truth.netns import Namespace
    from tracer.census import Census

    Step = Callable[[int], None]
    """What happens before a look, the first being 0."""

LOOKS: Final = 5
EVERY_S: Final = 3.0
PORTS: Final = 20
HOME: Final = "127.0.0.1"


def visit(ns: Namespace, port: int, count: int, send: bytes = b"") -> None:
    """Connect, send, and be the first to close."""
    for _ in range(count):
        with ns.socket() as client:
            client.connect((HOME, port))
            client.sendall(send)


def listener(stack: ExitStack, ns: Namespace) -> socket.socket:
    """Listen in a namespace, on a port that is none of connect()'s."""
    server = stack.enter_context(ns.socket())
    server.bind((HOME, 30_000))
    server.listen(64)
    return server


def leak(stack: ExitStack, ns: Namespace) -> Step:
    """Read to the end and forgotten: more at each look."""
    service = stack.enter_context(Service(ns, "forgets"))
    return lambda _: visit(ns, service.port, 4)


def never_read(stack: ExitStack, ns: Namespace) -> Step:
    """Data nobody reads."""
    service = stack.enter_context(Service(ns, "never_reads"))
    return lambda number: visit(ns, service.port, 0 if number else 6, b"x" * 1000)


def awaits_gc(stack: ExitStack, ns: Namespace) -> Step:
    """One collection closes all there are, then it grows again."""
    service = stack.enter_context(Service(ns, "leaves_to_gc"))

    def step(number: int) -> None:
        if number == LOOKS - 2:
            service.tell("collect")
        visit(ns, service.port, 6)

    return step


def late_close(stack: ExitStack, ns: Namespace) -> Step:
    """As many leave as come, one by one."""
    service = stack.enter_context(Service(ns, "forgets"))

    def step(number: int) -> None:
        visit(ns, service.port, 3 if number else 12)
        if number:
            service.tell("close 3")

    return step


def half_close(stack: ExitStack, ns: Namespace) -> Step:
    """The peer has said all, and reads on."""
    service = stack.enter_context(Service(ns, "keeps_sending"))
    client = stack.enter_context(ns.socket())
    client.connect((HOME, service.port))
    client.shutdown(socket.SHUT_WR)
    threading.Thread(target=drain, args=(client,), daemon=True).start()
    return lambda _: None


def drain(client: socket.socket) -> None:
    """Read what comes until the other side ends."""
    with contextlib.suppress(OSError):
        while client.recv(65_536):
            pass


def accept_queue(stack: ExitStack, ns: Namespace) -> Step:
    """Closed by the peer before anybody accepted: a queue that is stuck."""
    service = stack.enter_context(Service(ns, "never_accepts"))
    return lambda number: visit(ns, service.port, 0 if number else 5, b"hello")


def idle_pool(stack: ExitStack, ns: Namespace) -> Step:
    """We connected, the other side closed all; nobody looked since."""
    server = listener(stack, ns)
    client = stack.enter_context(Service(ns, "pools", server.getsockname()[1]))
    client.tell("connect 8")
    for _ in range(8):
        server.accept()[0].close()
    return lambda _: None


def full_queue(stack: ExitStack, ns: Namespace) -> Step:
    """More come than the queue holds."""
    service = stack.enter_context(Service(ns, "never_accepts", 4))
    for _ in range(8):
        client = stack.enter_context(ns.socket())
        client.setblocking(False)
        client.connect_ex((HOME, service.port))
    return lambda _: None


def no_port(stack: ExitStack, ns: Namespace) -> Step:
    """Every port towards one destination waits in TIME_WAIT."""
    ns.sysctl("ipv4/ip_local_port_range", f"40000 {40_000 + PORTS - 1}")
    ns.sysctl("ipv4/tcp_tw_reuse", "0")
    server = listener(stack, ns)
    for _ in range(PORTS):
        visit(ns, server.getsockname()[1], 1)
        with server.accept()[0] as conn:
            assert conn.recv(1) == b""
    return lambda _: None


SCENES: Final[dict[str, Callable[[ExitStack, Namespace], Step]]] = {
    scene.__name__: scene
    for scene in (
        leak, never_read, awaits_gc, late_close, half_close, accept_queue, idle_pool,
        full_queue, no_port,
    )
}  # fmt: skip


def anonymous(census: Census) -> Census:
    """Return a census without what tells of the machine it was taken on.

    And without the hundred counters that are zero everywhere.
    """
    processes = {
        pid: replace(facts, exe=None, cgroup=None) for pid, facts in census.processes.items()
    }
    namespaces = {
        inum: replace(facts, entered_by="", name=None, tcp_ext=telling(facts.tcp_ext))
        for inum, facts in census.namespaces.items()
    }
    cgroups = dict.fromkeys(census.cgroups)
    return replace(census, processes=processes, namespaces=namespaces, cgroups=cgroups)


def telling(counters: Mapping[str, int]) -> dict[str, int]:
    """Return those that count something, and those of listeners."""
    return {name: n for name, n in counters.items() if n or name.startswith("Listen")}


def looks(source: CensusSource, inums: set[int], steps: list[Step]) -> Iterator[Batch]:
    """Do each step, wait, take a census."""
    for number in range(LOOKS):
        for step in steps:
            step(number)
        time.sleep(EVERY_S)
        batch = source.take(inums, owners=True, users=True)
        data = encode_census(anonymous(decode_census(batch.data)))
        yield Batch(BatchKind.CENSUS, batch.mono_ns, data)


def main() -> None:
    """Play all scenes at once, and record."""
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(CensusSource(CensusSource.load()))
        spaces = {name: stack.enter_context(namespace("golden")) for name in SCENES}
        steps = [scene(stack, spaces[name]) for name, scene in SCENES.items()]
        scenes = {name: space.inum for name, space in spaces.items()}
        header = {"scenes": scenes}
        with RecordingWriter(str(RECORDED), header, force=True) as writer:
            for batch in looks(source, set(scenes.values()), steps):
                writer.write(batch)


if __name__ == "__main__":
    main()
