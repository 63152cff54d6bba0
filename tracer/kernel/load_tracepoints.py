# SPDX-License-Identifier: Apache-2.0
"""The part of the loader child that loads what follows closes: programs on tracepoints."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from tracer.kernel import bpf
from tracer.kernel.btf import KIND_TYPEDEF
from tracer.kernel.facts import knows_sender
from tracer.kernel.instructions import with_constant
from tracer.kernel.stages import StageError, refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracer.kernel.btf import Btf

__all__ = ("OPTIONAL", "PROGRAMS", "attach", "programs_for")

# (name in the manifest, function, tracepoint, is the twin): in the order they are attached.
# A twin must come after its first copy: it looks at what that one has done. The changes of
# state come last: a close they report has all other evidence it could have.
PROGRAMS = (
    ("receive_reset", "on_receive_reset", "tcp_receive_reset", False),
    ("receive_reset_twin", "on_receive_reset", "tcp_receive_reset", True),
    ("send_reset", "on_send_reset", "tcp_send_reset", False),
    ("send_reset_twin", "on_send_reset", "tcp_send_reset", True),
    ("set_state", "on_set_state", "inet_sock_set_state", False),
    ("set_state_twin", "on_set_state", "inet_sock_set_state", True),
)
# Left out where the kernel has no such tracepoint: they only add to what a record says.
# Linux commit e6a3e4434000 ("net: sock: add trace for socket errors") (in v5.14).
OPTIONAL = (
    ("error_report", "on_error_report", "inet_sk_error_report", False),
    ("signal", "on_signal", "signal_generate", False),
)
_TWIN_MARK = 0x7477696E  # is_twin() in teardown.bpf.c


def programs_for(btf: Btf) -> list[tuple[str, str, str, bool]]:
    """Return the programs this kernel can run, in the order they are attached."""
    there = [program for program in OPTIONAL if _tracepoint(btf, program[2]) is not None]
    return [one for one in there if one[0] != "signal" or knows_sender(btf)] + [*PROGRAMS]


def _tracepoint(btf: Btf, name: str) -> int | None:
    return btf.find(f"btf_trace_{name}", KIND_TYPEDEF)


def attach(code_of: Callable[[bytes], bytes], btf: Btf) -> dict[str, int]:
    """Load and attach every program; return program and link descriptors by name.

    `code_of` gives the instructions of a function in bpf/. Raises StageError.
    """
    loads = [Load(code_of, btf, *program) for program in programs_for(btf)]
    for load_ in loads:
        load_.start()
    fds = {}
    for load_ in loads:
        fds[f"prog:{load_.name}"] = load_.result()
    for load_ in loads:
        name = load_.name
        try:
            fds[f"link:{name}"] = bpf.attach_raw_tracepoint(name, fds[f"prog:{name}"])
        except bpf.LoadError as error:
            raise refused(error) from error
    return fds


class Load(threading.Thread):
    """One program on its way through the verifier, which takes a tenth of the start.

    The kernel verifies several at once, and the system call lets other threads run.
    """

    def __init__(
        self,
        code_of: Callable[[bytes], bytes],
        btf: Btf,
        name: str,
        function: str,
        tracepoint: str,
        twin: bool,
    ) -> None:
        """Look everything up; raises StageError when this kernel has no such tracepoint."""
        super().__init__(name=name, daemon=True)
        btf_id = _tracepoint(btf, tracepoint)
        if btf_id is None:
            raise StageError("btf", f"this kernel has no tracepoint {tracepoint}")
        self._btf_id = btf_id
        self._code = with_constant(code_of(function.encode()), _TWIN_MARK, int(twin))
        self._fd = -1
        self._error: bpf.LoadError | None = None

    def run(self) -> None:
        """Load; called by start()."""
        try:
            self._fd = bpf.load_tracing(self.name, self._code, self._btf_id)
        except bpf.LoadError as error:
            self._error = error

    def result(self) -> int:
        """Return the program's descriptor once it is loaded. Raises StageError."""
        self.join()
        if self._error is not None:
            raise refused(self._error) from self._error
        return self._fd
