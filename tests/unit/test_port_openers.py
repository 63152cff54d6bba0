# SPDX-License-Identifier: Apache-2.0
"""Who opened connections: counted from records of closes, by destination."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tests.unit import censuses as c
from tracer.detectors import port_openers
from tracer.detectors.local_ports import LocalPorts
from tracer.detectors.port_openers import PortOpeners
from tracer.tcp import ConnFlag
from tracer.wire import CLOSE_DTYPE

if TYPE_CHECKING:
    import pytest

    from tracer.wire import Records


def closes(count: int, pid: int, **fields: Any) -> Records:
    """Return closes of connections from 10.0.0.1 to 10.0.0.9:5432 that this process opened."""
    made = np.zeros(count, CLOSE_DTYPE)
    made["opener"]["tgid"], made["opener"]["comm"] = pid, np.frombuffer(b"web" + bytes(13), "u1")
    made["saddr"], made["daddr"] = c.packed("10.0.0.1"), c.packed("10.0.0.9")
    base = {"netns": 1, "rport": 5432, "lport": 40_000, "flags": int(ConnFlag.OPENED_ACTIVE)}
    for name, value in (base | fields).items():
        made[name] = value
    return made


def openers_of(openers: PortOpeners) -> list[tuple[str, int, int]]:
    """Return who opened connections to the destination, as `ports` has it."""
    (finding,) = LocalPorts(openers).look(c.census(ports=[c.ports(time_wait=9)]))
    return [(one.holder.comm, one.holder.pid, one.count) for one in finding.openers]


def test_openers_are_counted_by_destination() -> None:
    """Over several batches; another destination, namespace or direction is none of it."""
    openers = PortOpeners()
    openers.add(closes(2, 7))
    openers.add(np.concatenate([closes(3, 7), closes(4, 8), closes(9, 9, rport=80)]))
    openers.add(np.concatenate([closes(9, 9, netns=2), closes(9, 9, flags=0)]))
    openers.add(closes(9, 9, lport=0))
    assert openers_of(openers) == [("web", 7, 5), ("web", 8, 4)]


def test_what_is_beyond_the_bound_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process per connection, without end."""
    monkeypatch.setattr(port_openers, "KEYS_MAX", 2)
    openers = PortOpeners()
    for pid in range(1, 6):
        openers.add(closes(2, pid))
    openers.add(closes(1, 1))
    assert openers_of(openers) == [("web", 1, 3), ("web", 2, 2)]
    assert openers.left_out == 6
