# SPDX-License-Identifier: Apache-2.0
"""Which closes the user asked for: boolean masks over whole arrays, no object per record."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from tracer.actors import are_known

if TYPE_CHECKING:
    import ipaddress
    from collections.abc import Callable, Collection

    from numpy.typing import NDArray

    from tracer.tcp import Handshake, Kind
    from tracer.verdict import Verdicts
    from tracer.wire import Records

    Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Filter:
    """What must hold for a close to be shown; within one field any of the values will do.

    An empty field asks nothing. `ports` matches either port, `pids` and `comms`
    (shell patterns) either of opener and closer, `raddrs` are networks.
    """

    ports: tuple[int, ...] = ()
    pids: tuple[int, ...] = ()
    comms: tuple[str, ...] = ()
    raddrs: tuple[ipaddress.IPv6Network, ...] = ()
    netns: tuple[int, ...] = ()
    kinds: tuple[Kind, ...] = ()
    handshakes: tuple[Handshake, ...] = ()

    @property
    def active(self) -> bool:
        """Whether anything is asked at all."""
        return any(getattr(self, field.name) for field in fields(self))

    def mask(self, records: Records, verdicts: Verdicts) -> Mask:
        """Return True for each record that matches, shape (len(records),)."""
        chosen = np.ones(len(records), dtype=np.bool_)
        for wanted, test in self._tests():
            if wanted:
                chosen &= test(records, verdicts)
        return chosen

    def _tests(self) -> tuple[tuple[object, Callable[[Records, Verdicts], Mask]], ...]:
        return (
            (
                self.ports,
                lambda r, _: np.isin(r["lport"], self.ports) | np.isin(r["rport"], self.ports),
            ),
            (self.netns, lambda r, _: np.isin(r["netns"], self.netns)),
            (self.kinds, lambda _, v: np.isin(v["kind"], _codes(self.kinds))),
            (self.handshakes, lambda _, v: np.isin(v["handshake"], _codes(self.handshakes))),
            (self.pids, lambda r, v: _actors(r, v, lambda a: np.isin(a["tgid"], self.pids))),
            (self.comms, lambda r, v: _actors(r, v, lambda a: _comm_matches(a, self.comms))),
            (self.raddrs, lambda r, _: in_networks(r["daddr"], self.raddrs)),
        )


def _codes(members: Collection[Kind] | Collection[Handshake]) -> list[int]:
    return [int(member) for member in members]


# Only actors that the output names: a bystander met in softirq is nobody.
def _actors(records: Records, verdicts: Verdicts, test: Callable[[Records], Mask]) -> Mask:
    closer, opener = records["closer"], records["opener"]
    chosen: Mask = (verdicts["closer_known"] != 0) & test(closer) | are_known(opener) & test(opener)
    return chosen


# Few distinct names, many records: each name is matched once.
def _comm_matches(actors: Records, patterns: tuple[str, ...]) -> Mask:
    raw = np.ascontiguousarray(actors["comm"]).view("S16").reshape(len(actors))
    names, positions = np.unique(raw, return_inverse=True)
    matches = np.array([any_pattern(name, patterns) for name in names], dtype=np.bool_)
    chosen: Mask = matches[positions]
    return chosen


def any_pattern(raw: bytes, patterns: tuple[str, ...]) -> bool:
    """Tell whether a task's comm matches any shell pattern."""
    name = raw.split(b"\0", 1)[0].decode("utf-8", "replace")
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def in_networks(daddr: NDArray[Any], networks: tuple[ipaddress.IPv6Network, ...]) -> Mask:
    """Return True for each address, shape (rows, 16), in any network; IPv4 is mapped in both."""
    halves = np.ascontiguousarray(daddr).view(">u8").reshape(len(daddr), 2)
    chosen = np.zeros(len(daddr), dtype=np.bool_)
    for network in networks:
        chosen |= ((halves & _halves(network.netmask)) == _halves(network.network_address)).all(1)
    return chosen


def _halves(address: ipaddress.IPv6Address) -> NDArray[np.void]:
    pair: NDArray[np.void] = np.frombuffer(address.packed, dtype=">u8")
    return pair
