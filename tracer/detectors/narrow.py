# SPDX-License-Identifier: Apache-2.0
"""Which sockets of a census the user asked for: boolean masks over whole arrays."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from tracer.detectors.listeners import holding_inos
from tracer.filters import any_pattern, in_networks
from tracer.tcp import TcpState

if TYPE_CHECKING:
    import ipaddress

    from tracer.census import Census, Rows
    from tracer.detectors.rows import Mask


@dataclass(frozen=True, slots=True)
class CensusFilter:
    """What must hold for a socket to be looked at; within one field any of the values will do.

    An empty field asks nothing. `ports` matches either port; `pids` and `comms` (shell patterns)
    any process that holds the socket, of one in an accept queue its listener's; `raddrs` are
    networks.
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
            ports=census.ports[self._ends(census.ports)],
        )

    def mask(self, census: Census) -> Mask:
        """Return True for each socket that matches, shape (sockets,)."""
        sockets = census.sockets
        chosen = self._ends(sockets)
        if self.pids or self.comms:
            chosen &= np.isin(holding_inos(census, sockets), self._held(census))
        return chosen

    # The ports and addresses of SOCKETS, or of PORTS, where 0 is none.
    def _ends(self, rows: Rows) -> Mask:
        chosen = np.ones(len(rows), np.bool_)
        if self.ports:
            chosen &= np.isin(rows["lport"], self.ports) | np.isin(rows["rport"], self.ports)
        if self.raddrs:
            chosen &= in_networks(rows["raddr"], self.raddrs)
        return chosen

    def _held(self, census: Census) -> Rows:
        owners = census.owners
        wanted = np.ones(len(owners), np.bool_)
        if self.pids:
            wanted &= np.isin(owners["tgid"], self.pids)
        if self.comms:
            names, place = np.unique(owners["comm"], return_inverse=True)
            match = [any_pattern(bytes(name), self.comms) for name in names]
            wanted &= np.array(match, np.bool_)[place]
        inos: Rows = owners["ino"][wanted]
        return inos
