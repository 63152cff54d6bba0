# SPDX-License-Identifier: Apache-2.0
"""The part of the loader child that loads what follows closes: programs on tracepoints."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from tracer.kernel import bpf
from tracer.kernel.facts import knows_sender
from tracer.kernel.instructions import with_constant
from tracer.kernel.stages import StageError, refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracer.kernel.btf import Btf

__all__ = ("OPTIONAL", "PROGRAMS", "attach", "lacking")

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
# They only add to what a record says: left out where the kernel lacks what they need, or refuses.
# Linux commit e6a3e4434000 ("net: sock: add trace for socket errors") (in v5.14).
OPTIONAL = (
    ("error_report", "on_error_report", "inet_sk_error_report", False),
    ("signal", "on_signal", "signal_generate", False),
)
_TWIN_MARK = 0x7477696E  # is_twin() in teardown.bpf.c


def attach(code_of: Callable[[bytes], bytes], btf: Btf) -> tuple[dict[str, str], dict[str, int]]:
    """Load and attach every program this kernel can run.

    Return why optional ones were left out, by name, and program and link descriptors by name.
    `code_of` gives the instructions of a function in bpf/. Raises StageError.
    """
    left_out, fds = lacking(btf), {}
    programs = (program for program in (*OPTIONAL, *PROGRAMS) if program[0] not in left_out)
    loads = [Load(code_of, btf, *program) for program in programs]
    for load_ in loads:
        load_.start()
    for load_ in loads:
        try:
            fds[f"prog:{load_.name}"] = load_.result()
        except bpf.LoadError as error:
            _leave_out(load_.name, error, left_out)
    for name in [load_.name for load_ in loads if load_.name not in left_out]:
        try:
            fds[f"link:{name}"] = bpf.attach_raw_tracepoint(name, fds[f"prog:{name}"])
        except bpf.LoadError as error:
            _leave_out(name, error, left_out)
            del fds[f"prog:{name}"]  # closed with this process
    return left_out, fds


def lacking(btf: Btf) -> dict[str, str]:
    """Return by name which optional programs this kernel lacks something for, and what."""
    without = {
        name: f"the kernel has no tracepoint {tracepoint}"
        for name, _, tracepoint, _ in OPTIONAL
        if btf.tracepoint(tracepoint) is None
    }
    if not knows_sender(btf):
        without.setdefault("signal", "needs x86-64 and a kernel of 5.15 or later")
    return without


# Raises StageError where nothing can be traced without it.
def _leave_out(name: str, error: bpf.LoadError, left_out: dict[str, str]) -> None:
    if name not in {one for one, *_ in OPTIONAL}:
        raise refused(error) from error
    left_out[name] = error.words


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
        btf_id = btf.tracepoint(tracepoint)
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
        """Return the program's descriptor once it is loaded. Raises LoadError."""
        self.join()
        if self._error is not None:
            raise self._error
        return self._fd
