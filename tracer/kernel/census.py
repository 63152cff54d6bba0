# SPDX-License-Identifier: Apache-2.0
"""The running kernel's present: every TCP socket of every network namespace, as one batch."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import numpy as np

from tracer.batch import Batch, BatchKind
from tracer.census import OWNERS, PORTS, SOCKETS, STATES, USERS, Census
from tracer.errors import HostError, UsageError
from tracer.kernel import netns
from tracer.kernel.census_bytes import encode_census
from tracer.kernel.cgroups import CgroupPaths
from tracer.kernel.launch import Loader
from tracer.kernel.mechanism import ROWS_MAX, WalkRequest
from tracer.kernel.netns_facts import max_orphans, read_facts
from tracer.kernel.processes import PROCESSES_MAX, read_processes
from tracer.kernel.source import hz
from tracer.kernel.walk import OWNER_ROW, Walker
from tracer.tcp import TcpState

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import numpy.typing as npt

    from tracer.census import NetnsFacts, ProcessFacts, Rows
    from tracer.kernel.launch import Loaded
    from tracer.kernel.mechanism import Mechanism, Walk

__all__ = ("CENSUS_OPTIONS", "CensusSource")

CENSUS_OPTIONS: Final = {"states_max": 1 << 14, "ports_max": 1 << 16}
"""How many states of a cgroup, and how many destinations, one namespace can have."""

ROW_STATES: Final = (
    TcpState.LISTEN,
    TcpState.CLOSE_WAIT,
    TcpState.FIN_WAIT1,
    TcpState.FIN_WAIT2,
    TcpState.CLOSING,
    TcpState.LAST_ACK,
)
"""Whose full sockets can be shown one by one."""

USER_STATES: Final = (
    TcpState.ESTABLISHED,
    TcpState.SYN_SENT,
    *(state for state in ROW_STATES if state != TcpState.LISTEN),
)
"""Who is connected where is counted over these."""

FORCE: Final = "FOURWAVE_CENSUS"
"""Environment variable: "sock_diag" takes the second choice without trying the first."""
SOCK_DIAG: Final = "sock_diag"


PREFIX: Final = "census:"
"""Of the descriptors the loader hands over for a census."""


class Found(NamedTuple):
    """All walks of a census."""

    walks: list[Walk]
    namespaces: dict[int, NetnsFacts]
    left_out: Counter[str]
    max_orphans: int | None

    @property
    def rows(self) -> int:
        """How many sockets were told one by one."""
        return sum(len(walk.sockets) for walk in self.walks) // SOCKETS.itemsize


class _Ask(NamedTuple):
    chosen: set[int] | None
    rows: tuple[TcpState, ...]
    owners: bool
    users: bool


class CensusSource:
    """The present of this host on demand; nothing runs between two censuses."""

    def __init__(self, loader: Loader | Loaded) -> None:
        """Wait for the loader, or take over what another source's has loaded for this one.

        Without BPF it is sock_diag, and `reason` says why. Raises nothing but UsageError.
        """
        self._fds: dict[str, int] = {}
        self.reason: str | None
        try:
            loaded = loader.wait() if isinstance(loader, Loader) else loader
            ours = [name for name in loaded.fds if name.startswith(PREFIX)]
            self._fds = {name.removeprefix(PREFIX): loaded.fds.pop(name) for name in ours}
            self.reason = _refusal(loaded.manifest["census"])
        except HostError as error:
            self.reason = str(error).partition("\n")[0]
        self._look: Mechanism = Walker(self._fds) if self.reason is None else _second_choice()
        self._cgroups = CgroupPaths()

    @staticmethod
    def options() -> dict[str, Any]:
        """Return what the loader is to be told of the census."""
        return {"hz": hz(), **CENSUS_OPTIONS}

    @staticmethod
    def load() -> Loader:
        """Start the loader child for the census alone and return at once."""
        return Loader({"sets": ["census"], **CensusSource.options()})

    @property
    def mechanism(self) -> str:
        """How it looks: "iterator" or "sock_diag"."""
        return self._look.name

    def take(
        self,
        chosen: set[int] | None = None,
        *,
        rows: Collection[TcpState] = ROW_STATES,
        owners: bool,
        users: bool = False,
    ) -> Batch:
        """Return a CENSUS batch of these namespaces, None: of all that can be found.

        `rows`: whose full sockets are shown one by one, of ROW_STATES. `owners`: who holds
        these, and the sockets in CLOSE that only their descriptors tell of. `users`: with them,
        who is connected where. Raises OSError.
        """
        ask = _Ask(chosen, tuple(rows), owners, users)
        census = netns.in_thread(lambda: self._census(ask))
        return Batch(BatchKind.CENSUS, census.mono_ns, encode_census(census))

    def close(self) -> None:
        """Unload everything."""
        self._look.close()
        self._cgroups.close()
        for fd in self._fds.values():
            os.close(fd)
        self._fds = {}

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Unload everything."""
        self.close()

    def _census(self, ask: _Ask) -> Census:
        began = time.monotonic_ns()
        found = Found([], {}, Counter(), max_orphans())
        for inum, path in _namespaces(ask.chosen, found.left_out).items():
            self._walk(found, inum, path, ask.rows)
        held, used = np.zeros(0, OWNER_ROW), np.zeros(0, USERS)
        if ask.owners:
            counted = USER_STATES if ask.users else ()
            looked = self._look.owners((*ask.rows, TcpState.CLOSE), counted)
            found.left_out["descriptors"] += looked.rows_left_out
            found.left_out["users"] += looked.users_left_out
            for inum, path in _only_by_sockets(looked.homes, found, ask.chosen).items():
                self._walk(found, inum, path, ask.rows)
            held, used = (_in(found.namespaces, rows) for rows in (looked.owners, looked.users))
        in_close = held["state"] == TcpState.CLOSE
        by_state = [np.zeros(0, STATES), *(walk.states for walk in found.walks)]
        states = np.concatenate([*by_state, _closed(held[in_close])])
        sockets = np.frombuffer(_joined([walk.sockets for walk in found.walks]), SOCKETS)
        holders = _holders(held, ~in_close)
        return Census(
            mono_ns=began,
            took_ns=time.monotonic_ns() - began,
            mechanism=self.mechanism,
            reason=self.reason,
            states=states,
            ports=np.concatenate([np.zeros(0, PORTS), *(walk.ports for walk in found.walks)]),
            sockets=sockets,
            owners=holders,
            users=used,
            namespaces=found.namespaces,
            processes=_processes(sockets, holders, found.left_out),
            cgroups={int(number): self._cgroups.path(int(number)) for number in _cgroups(states)},
            truncated=+found.left_out,
        )

    # Enter a namespace and look at its sockets. One that ended since it was found is nothing.
    def _walk(self, found: Found, inum: int, path: str, rows: tuple[TcpState, ...]) -> None:
        try:
            with netns.entered(inum, path):
                facts = read_facts(path, found.max_orphans)
                if _has_sockets(facts):
                    room = max(0, ROWS_MAX - found.rows)
                    asked = WalkRequest(inum, facts.port_range, rows, _there(facts), room)
                    walk = self._look.walk(asked)
                    found.walks.append(walk)
                    found.left_out["sockets one by one"] += walk.rows_left_out
                    found.left_out["states"] += walk.states_left_out
                    found.left_out["ports"] += walk.ports_left_out
        except (FileNotFoundError, ProcessLookupError):
            return
        except PermissionError:
            found.left_out["namespaces"] += 1
            return
        found.namespaces[inum] = facts


def _forced() -> str:
    wanted = os.environ.get(FORCE, "")
    if wanted not in ("", SOCK_DIAG):
        raise UsageError(f"{FORCE}={wanted}: only {SOCK_DIAG} can be asked for")
    return wanted


# Why the iterators cannot be used, None when they can.
def _refusal(outcome: Any) -> str | None:
    if forced := _forced():
        return f"{FORCE}={forced}"
    return None if outcome == "iterator" else f"{outcome['stage']}: {outcome['message']}"


def _second_choice() -> Mechanism:
    from tracer.kernel.sock_diag import SockDiag  # noqa: PLC0415 - its library is large

    return SockDiag()


def _namespaces(chosen: set[int] | None, left_out: Counter[str]) -> dict[int, str]:
    if chosen is None:
        return netns.find()
    found = netns.find(chosen)
    if not chosen <= found.keys():
        found = netns.find(chosen, thorough=True)
    left_out["namespaces"] += len(chosen - found.keys())
    return {inum: path for inum, path in found.items() if inum in chosen}


# Namespaces that nothing shows but a process's socket.
def _only_by_sockets(
    homes: Mapping[int, str], found: Found, chosen: set[int] | None
) -> dict[int, str]:
    paths = {
        inum: path
        for inum, path in homes.items()
        if inum not in found.namespaces and (chosen is None or inum in chosen)
    }
    if chosen is not None:
        found.left_out["namespaces"] -= len(paths)
    return paths


def _in(namespaces: Mapping[int, object], rows: Rows) -> Rows:
    inside = np.isin(rows["netns"], list(namespaces))
    return rows if inside.all() else rows[inside]


# Of a host whose connections are all in one namespace nothing is copied.
def _joined(parts: list[bytes | bytearray]) -> bytes | bytearray:
    told = [part for part in parts if part]
    return told[0] if len(told) == 1 else b"".join(told)


# Column by column: there may be a million.
def _holders(held: Rows, chosen: npt.NDArray[np.bool_]) -> Rows:
    out = np.empty(int(np.count_nonzero(chosen)), OWNERS)
    for name in OWNERS.names or ():
        out[name] = held[name][chosen]
    return out


# How many full sockets there are; None: mini-sockets besides, or not known.
def _there(facts: NetnsFacts) -> int | None:
    counts = facts.sockstat
    if counts.get("tw") or "inuse" not in counts:
        return None
    return counts["inuse"] + counts.get("tcp6_inuse", 0)


# A walk goes through the whole hash table, whose size is the host's: milliseconds.
def _has_sockets(facts: NetnsFacts) -> bool:
    counts = facts.sockstat
    return not counts or any(counts.get(name) for name in ("inuse", "tw", "tcp6_inuse"))


# Unhashed sockets have no place but a process's descriptor; a shared one is still one socket.
def _closed(rows: Rows) -> Rows:
    _, first = np.unique(rows["ino"], return_index=True)
    inums, counts = np.unique(rows["netns"][first], return_counts=True)
    out = np.zeros(len(inums), STATES)
    out["netns"], out["count"] = inums, counts
    out["state"] = out["substate"] = TcpState.CLOSE
    return out


def _cgroups(states: Rows) -> Rows:
    ids = np.unique(states["cgroup_id"])
    return ids[ids > 0]


def _processes(sockets: Rows, held: Rows, left_out: Counter[str]) -> dict[int, ProcessFacts]:
    holders = held[np.isin(held["ino"], sockets["ino"])]
    tgids, first = np.unique(holders["tgid"], return_index=True)
    left_out["processes"] += max(0, len(tgids) - PROCESSES_MAX)
    started_ns = holders["start_ns"][first].tolist()
    return read_processes(dict(zip(tgids[:PROCESSES_MAX].tolist(), started_ns, strict=False)))
