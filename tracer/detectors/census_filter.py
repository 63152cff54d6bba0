# SPDX-License-Identifier: Apache-2.0
"""Which sockets of a census the user asked for: boolean masks over whole arrays."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from tracer.detectors.listeners import holding_inos
from tracer.detectors.rows import halves, in_state, number_groups, service_keys
from tracer.filters import any_pattern, in_networks
from tracer.tcp import TcpState

if TYPE_CHECKING:
    import numpy.typing as npt

    from tracer.census import Census, Rows
    from tracer.detectors.port_failures import PortFailure
    from tracer.detectors.rows import Mask


@dataclass(frozen=True, slots=True)
class CensusFilter:
    """What must hold for a socket to be looked at; within one field any of the values will do.

    An empty field asks nothing. `ports` matches either port; `pids` and `comms` (shell patterns)
    any process that holds the socket, of one in an accept queue its listener's, or is connected
    to the destination; `raddrs` are networks.
    """

    ports: tuple[int, ...] = ()
    pids: tuple[int, ...] = ()
    comms: tuple[str, ...] = ()
    raddrs: tuple[ipaddress.IPv6Network, ...] = ()

    @property
    def active(self) -> bool:
        """Whether anything is asked at all."""
        return any(getattr(self, field.name) for field in fields(self))

    def narrow(self, census: Census) -> Census:
        """Return the census without what was not asked for.

        Listening sockets stay whatever their addresses: they tell which ports are services.
        """
        if not self.active:
            return census
        listening = census.sockets["state"] == TcpState.LISTEN
        return replace(
            census,
            sockets=census.sockets[listening | self.mask(census)],
            ports=census.ports[self._ends(census.ports) & self._used(census)],
            users=census.users[self._by(census.users)],
        )

    def admits(self, failure: PortFailure) -> bool:
        """Whether a connect() that found no port is asked for."""
        addr = ipaddress.ip_address(failure.raddr)
        mapped = addr if addr.version == 6 else ipaddress.IPv6Address(f"::ffff:{addr}")
        return (
            (not self.ports or failure.rport in self.ports)
            and (not self.pids or failure.pid in self.pids)
            and (not self.comms or any_pattern(failure.comm.encode(), self.comms))
            and (not self.raddrs or any(mapped in network for network in self.raddrs))
        )

    def mask(self, census: Census) -> Mask:
        """Return True for each socket that matches, shape (sockets,)."""
        sockets = census.sockets
        chosen = self._ends(sockets)
        if self.pids or self.comms:
            inos = census.owners["ino"][self._by(census.owners)]
            chosen &= np.isin(holding_inos(census, sockets), inos)
        return chosen

    # The ports and addresses of SOCKETS, or of PORTS, where 0 is none.
    def _ends(self, rows: Rows) -> Mask:
        chosen = np.ones(len(rows), np.bool_)
        if self.ports:
            chosen &= np.isin(rows["lport"], self.ports) | np.isin(rows["rport"], self.ports)
        if self.raddrs:
            chosen &= in_networks(rows["raddr"], self.raddrs)
        return chosen

    # Destinations and services of these processes. A TIME_WAIT alone is nobody's.
    def _used(self, census: Census) -> Mask:
        ports = census.ports
        if not (self.pids or self.comms):
            return np.ones(len(ports), np.bool_)
        listening = in_state(census.sockets, TcpState.LISTEN)
        inos = census.owners["ino"][self._by(census.owners)]
        served = listening[np.isin(listening["ino"], inos)]
        mine = np.isin(
            service_keys(ports["netns"], ports["lport"]),
            service_keys(served["netns"], served["lport"]),
        )
        towards = _towards(ports, census.users[self._by(census.users)])
        return np.where(ports["inbound"] != 0, mine, towards)

    # Rows of a process: OWNERS or USERS.
    def _by(self, rows: Rows) -> Mask:
        wanted = np.ones(len(rows), np.bool_)
        if self.pids:
            wanted &= np.isin(rows["tgid"], self.pids)
        if self.comms:
            names, place = np.unique(rows["comm"], return_inverse=True)
            match = [any_pattern(bytes(name), self.comms) for name in names]
            wanted &= np.array(match, np.bool_)[place]
        return wanted


# Which rows of PORTS are destinations of these USERS.
def _towards(ports: Rows, users: Rows) -> Mask:
    both = [
        np.concatenate(pair) for pair in zip(_destination(ports), _destination(users), strict=True)
    ]
    ids, _ = number_groups(*both)
    return np.isin(ids[: len(ports)], ids[len(ports) :])


def _destination(rows: Rows) -> tuple[npt.NDArray[np.generic], ...]:
    return rows["netns"], rows["rport"], *halves(rows["laddr"]), *halves(rows["raddr"])
