# SPDX-License-Identifier: Apache-2.0
"""The part of the loader child that loads what notes the user stacks sockets come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracer.kernel import bpf, hooks
from tracer.kernel.btf import KIND_FUNC, Btf, BtfError
from tracer.kernel.hooking import attach_hook, kernel_support
from tracer.kernel.load_census import CENSUS_MEMBERS

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("MAIN", "MAPS", "ORIGIN_MEMBERS", "attach", "check", "macros_of")

MAIN = "origins.bpf.c"
MAPS = ("origins", "user_stacks", "origin_losses")
SYS_EXIT = "sys_exit"
GRAFT = hooks.Hook(
    "origin", {"security_sock_graft": "on_origin_graft"}, all_needed=True, otherwise=SYS_EXIT
)
ORIGIN_MEMBERS = {
    **CENSUS_MEMBERS,
    "pt_regs": {**CENSUS_MEMBERS["pt_regs"], "sp": "sp?", "syscallno": "syscallno?"},
}


def macros_of(options: dict[str, Any]) -> list[str]:
    """Return the sizes of the maps as macros."""
    return [f"-D{name.upper()}={options[name]}" for name in ("origins_max", "user_stacks_max")]


def check(btf: Btf) -> None:
    """Raise BtfError where a socket cannot be known by its cookie."""
    if btf.find("bpf_get_socket_ptr_cookie", KIND_FUNC) is None:
        raise BtfError("programs of this kernel can give a socket no cookie (v5.12 and later can)")


def attach(
    maps: dict[str, int], code: Callable[[bytes], bytes], btf: Btf
) -> tuple[dict[str, Any], dict[str, int]]:
    """Return what the manifest tells, and the descriptors. Raises LoadError, BtfError.

    `code` returns the instructions of a function by its name.
    """
    fds = {f"map:{name}": fd for name, fd in maps.items()}
    fds |= _tracepoint("origin_state", "inet_sock_set_state", code(b"on_origin_state"), btf)
    told, hooked = attach_hook(GRAFT, kernel_support(btf), code)
    fds |= hooked
    if told["mechanism"] == SYS_EXIT:
        fds |= _tracepoint("origin_sys_exit", "sys_exit", code(b"on_origin_sys_exit"), btf)
    return told, {f"origins:{name}": fd for name, fd in fds.items()}


def _tracepoint(name: str, tracepoint: str, code: bytes, btf: Btf) -> dict[str, int]:
    btf_id = btf.tracepoint(tracepoint)
    if btf_id is None:
        raise BtfError(f"this kernel has no tracepoint {tracepoint}")
    program = bpf.load_tracing(name, code, btf_id)
    return {f"prog:{name}": program, f"link:{name}": bpf.attach_raw_tracepoint(name, program)}
