# SPDX-License-Identifier: Apache-2.0
"""What this host allows: facts by asking and by trial, each "no" with its remedy."""

from __future__ import annotations

import json
import os
import platform
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tracer import confinement, confinement_syscalls, privileges
from tracer.errors import HostError
from tracer.kernel import capabilities, hooks, lockdown
from tracer.kernel.cgroups import CgroupPaths
from tracer.kernel.launch import not_mounted, python_candidates

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracer.kernel.source import KernelSource

__all__ = ("Fact", "probe")

_BTF = Path("/sys/kernel/btf/vmlinux")


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing the tracer asks of a host. `ok` None: it works without, but less well."""

    name: str
    ok: bool | None
    detail: str
    remedy: str | None = None


def probe() -> list[Fact]:
    """Return all facts; the last ones come from a real load, which is undone at once."""
    if absent := not_mounted():
        return [Fact("file systems", False, f"{absent[0]} is not mounted", absent[1])]
    return [*_standing_facts(), *_trial_facts(), _census()]


def _standing_facts() -> Iterator[Fact]:
    yield Fact("kernel", True, f"{platform.release()} {platform.machine()}")
    yield _privilege()
    yield _btf()
    yield _lockdown()
    yield _bcc_python()
    yield _cgroup2()
    yield _confined()
    yield _confined_syscalls()


def _privilege() -> Fact:
    lacking = " and ".join(capabilities.missing())
    if not lacking:
        return Fact("privilege", True, "root" if os.geteuid() == 0 else "CAP_BPF, CAP_PERFMON")
    detail = f"uid {os.geteuid()} without {lacking}"
    return Fact("privilege", False, detail, "run as root: sudo fourwave …")


def _btf() -> Fact:
    if _BTF.exists():
        return Fact(
            "btf", True, f"{_BTF}, {_BTF.stat().st_size // 1024} KiB: no kernel headers needed"
        )
    remedy = (
        "use a kernel with CONFIG_DEBUG_INFO_BTF=y, as every current distribution's is; mount /sys"
    )
    return Fact("btf", False, f"{_BTF} does not exist", remedy)


def _lockdown() -> Fact:
    mode = lockdown.mode()
    if mode is None:
        return Fact("lockdown", True, "not shown by this kernel; the trial below decides")
    if mode == lockdown.CONFIDENTIALITY:
        return Fact("lockdown", False, mode, lockdown.REMEDY)
    return Fact("lockdown", True, mode)


def _bcc_python() -> Fact:
    found = ", ".join(python_candidates())
    if not found:
        return Fact("python with bcc", False, "no python3 found", "apt install python3-bpfcc")
    return Fact("python with bcc", True, f"looked for in {found}")


def _cgroup2() -> Fact:
    with closing(CgroupPaths()) as paths:
        there = paths.there
    if there:
        return Fact("cgroup2", True, "mounted: units and containers are named")
    remedy = "mount -t cgroup2 none /sys/fs/cgroup/unified"
    return Fact("cgroup2", None, "not mounted: closes carry no unit or container", remedy)


def _confined() -> Fact:
    abi, reason = confinement.version()
    if reason is not None:
        remedy = "pip install landlockpy, on a kernel with Landlock (Linux 5.13, lsm=…,landlock)"
        return Fact("web process", None, f"reads what its user can: {reason}", remedy)
    then = "begins no connection" if abi >= confinement.NETWORK_ABI else "may connect (before 6.7)"
    return Fact("web process", True, f"Landlock {abi}: reads its own code, writes nothing, {then}")


def _confined_syscalls() -> Fact:
    reason = confinement_syscalls.missing()
    if reason is not None:
        remedy = "install libseccomp2 (libseccomp on Fedora and Arch)"
        return Fact("web system calls", None, f"all that its user may: {reason}", remedy)
    return Fact("web system calls", True, "seccomp: runs no program, opens no socket")


def _trial_facts() -> Iterator[Fact]:
    from tracer.kernel.source import KernelSource  # noqa: PLC0415 - numpy, only when asked

    try:
        with KernelSource(KernelSource.load()) as source:
            counters = json.loads(bytes(source.counters().data))
            yield from _loaded_facts(source.manifest, counters, source.host.hz)
            yield _kept(source)
    except HostError as error:
        message, _, remedy = str(error).partition("\n  what to do: ")
        yield Fact("attach", False, message, remedy or None)


def _census() -> Fact:
    from tracer.kernel.census import CensusSource  # noqa: PLC0415 - numpy, only when asked

    with CensusSource(CensusSource.load()) as source:
        if source.reason is None:
            how = "iterators: added up in the kernel, every network namespace"
            return Fact("census", True, how)
        detail = f"sock_diag, a hundred times slower: no iterators ({source.reason})"
        return Fact("census", None, detail, "leaks, ports and listeners work all the same")


def _loaded_facts(manifest: dict[str, Any], counters: dict[str, Any], hz: int) -> Iterator[Fact]:
    programs = f"{len(manifest['programs'])} programs by {manifest['mechanism']}"
    by = f"BCC {manifest['bcc_version']} of {manifest['python_path']}"
    when = "compiled now" if manifest["compiled"] == "now" else "compiled at an earlier start"
    yield Fact("attach", True, f"{programs}, {by}, {when}")
    yield from map(_hook, manifest["hooks"])
    yield _reset_reasons(manifest)
    yield from _added(manifest["left_out"])
    yield _misses(counters)
    rings = f"{manifest['rings']} of {manifest['ring_bytes'] >> 10} KiB"
    yield Fact("ring", True, f"{rings}, {manifest['conn_max']} connections at most")
    yield Fact(
        "timer", True, f"HZ={hz}: delayed ACK from 40 to 200 ms, one tick is {1000 // hz} ms"
    )


# By the hook: what it is about, what it tells, and what there is without it.
_HOOKS: Final = {
    hooks.ACK_SENT.name: (
        "ACK of the FIN",
        "seen leaving",
        "by the socket's own counters: exact, but without its time",
    ),
    hooks.ACCEPTED.name: (
        "accept()",
        "who accepts, and after how long, is seen",
        "who accepted a connection is not known",
    ),
    hooks.TIME_WAIT.name: (
        "TIME_WAIT",
        "what becomes of it is counted",
        "how many enter is counted, what becomes of them is not",
    ),
}


def _hook(hook: dict[str, Any]) -> Fact:
    name, seen, unseen = _HOOKS[hook["hook"]]
    if hook["functions"]:
        detail = f"{seen} by {hook['mechanism']} on {_listed(hook['functions'])}"
        return Fact(name, True, "; ".join(filter(None, (detail, hook["reason"]))))
    why = f" ({hook['reason']})" if hook["reason"] else ""
    return Fact(name, None, f"{unseen}{why}")


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


# Tried in a child, as there is no way back.
def _kept(source: KernelSource) -> Fact:
    ours, theirs = os.pipe()
    if not (child := os.fork()):
        try:
            who = privileges.account(None)
            privileges.drop(who, privileges.names(privileges.FOLLOWING))
            kept = privileges.settle(source.needs, privileges.FOLLOWING)
            name = who.name if who else f"uid {os.geteuid()}"
            os.write(theirs, f"as {name} with {', '.join(kept) or 'no capability'}".encode())
        except (OSError, HostError) as error:
            os.write(theirs, f"!{error}".encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    if text.startswith("!") or not text:
        remedy = "serve must stay root here: fourwave serve --user root"
        return Fact("serve", None, text[1:] or "the trial ended without an answer", remedy)
    census = ", ".join(privileges.NAMESPACES)
    why = "to enter network namespaces and to see who holds a socket"
    return Fact("serve", True, f"{text}; its census keeps {census}, {why}")


def _reset_reasons(manifest: dict[str, Any]) -> Fact:
    count = len(manifest["reset_reasons"])
    if count:
        return Fact("reset reasons", True, f"{count} named by the kernel")
    return Fact(
        "reset reasons", None, "this kernel gives none: causes come from the socket's evidence"
    )


# What programs tell that others can do without; `left_out`: why, by program.
def _added(left_out: dict[str, str]) -> Iterator[Fact]:
    for program, (name, told, untold) in _ADDED.items():
        if program in left_out:
            yield Fact(name, None, f"{untold} ({left_out[program]})")
        else:
            yield Fact(name, True, told)


_ADDED: Final = {
    "error_report": (
        "socket errors",
        "the first one the application was told is kept",
        "only one that is still there at the end is known",
    ),
    "signal": (
        "SIGPIPE",
        "told by connection: the signal, and the sender's descriptor",
        "not told by connection",
    ),
}


def _misses(counters: dict[str, Any]) -> Fact:
    if "recursion_misses" in counters["programs"]["set_state"]:
        return Fact("interrupted programs", True, "a twin takes over; what both miss is counted")
    return Fact("interrupted programs", True, "this kernel has no recursion guard to miss events")
