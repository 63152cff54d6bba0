# SPDX-License-Identifier: Apache-2.0
"""The few bpf(2) commands we need, by plain system call.

BCC compiles but cannot load BTF-typed raw tracepoints, and libbpf's own loading functions
change their signatures between versions; the system call does not.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

from tracer.kernel import bpf_attr

__all__ = (
    "LoadError",
    "attach_raw_tracepoint",
    "call",
    "create_iterator",
    "create_map",
    "describe_map",
    "knows_cmpxchg",
    "link_iterator",
    "load_fentry",
    "load_for_test_run",
    "load_iterator",
    "load_kprobe",
    "load_tracing",
    "test_run",
)

_NR_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
_MAP_CREATE, _PROG_LOAD, _PROG_TEST_RUN = 0, 5, 10
_OBJ_GET_INFO_BY_FD, _RAW_TRACEPOINT_OPEN = 15, 17
_LINK_CREATE, _ITER_CREATE = 28, 33
_PROG_TYPE_KPROBE, _PROG_TYPE_RAW_TRACEPOINT, _PROG_TYPE_TRACING = 2, 17, 26
_TRACE_RAW_TP, _TRACE_FENTRY, _TRACE_ITER = 23, 24, 28
_LOG_BYTES = 1 << 20
_LIBC = ctypes.CDLL(None, use_errno=True)  # once: each makes a class of its own
_CMPXCHG_PROGRAM = struct.pack(
    "=" + "BBhi" * 5,
    *(0xB7, 0x00, 0, 0),  # r0 = 0
    *(0x7B, 0x0A, -8, 0),  # *(u64 *)(r10 - 8) = r0
    *(0xDB, 0x0A, -8, 0xF1),  # r0 = cmpxchg(r10 - 8, r0, r0)
    *(0xB7, 0x00, 0, 0),
    *(0x95, 0x00, 0, 0),  # exit
)


class LoadError(OSError):
    """The kernel refused what `words` tell; `log` is what the verifier said."""

    def __init__(self, code: int, what: str, log: str = "") -> None:
        super().__init__(code, os.strerror(code), what)
        self.log = log
        self.words = f"{what}: {self.strerror}"


def load_tracing(name: str, instructions: bytes, attach_btf_id: int) -> int:
    """Load a BTF-typed raw tracepoint program (5.5 and later); return its descriptor.

    Raises LoadError with the verifier's log.
    """
    kind = {"prog_type": _PROG_TYPE_TRACING, "expected_attach_type": _TRACE_RAW_TP}
    return _load(name, instructions, {**kind, "attach_btf_id": attach_btf_id})


def load_iterator(name: str, instructions: bytes, attach_btf_id: int) -> int:
    """Load a program for the iterator whose function that is (5.8 and later). Raises LoadError."""
    kind = {"prog_type": _PROG_TYPE_TRACING, "expected_attach_type": _TRACE_ITER}
    return _load(name, instructions, {**kind, "attach_btf_id": attach_btf_id})


def load_fentry(name: str, instructions: bytes, attach_btf_id: int) -> int:
    """Load a program for the entry of a kernel function (5.5 and later). Raises LoadError."""
    kind = {"prog_type": _PROG_TYPE_TRACING, "expected_attach_type": _TRACE_FENTRY}
    return _load(name, instructions, {**kind, "attach_btf_id": attach_btf_id})


def load_kprobe(name: str, instructions: bytes) -> int:
    """Load a program for a kprobe. Raises LoadError."""
    return _load(name, instructions, {"prog_type": _PROG_TYPE_KPROBE})


def load_for_test_run(name: str, instructions: bytes) -> int:
    """Load a program that test_run() can run and nothing is attached to. Raises LoadError."""
    return _load(name, instructions, {"prog_type": _PROG_TYPE_RAW_TRACEPOINT})


def knows_cmpxchg() -> bool:
    """Try whether programs may compare and exchange.

    Linux commit 5ffa25502b5a ("bpf: Add instructions for atomic_[cmp]xchg") (in v5.12); each
    architecture's compiler followed in its own time.
    """
    try:
        os.close(load_for_test_run("cmpxchg", _CMPXCHG_PROGRAM))
    except LoadError:
        return False
    return True


def describe_map(fd: int) -> tuple[int, int, int, int, int, str]:
    """Return type, key size, value size (bytes), entries, flags and name of a map.

    What create_map() takes. Raises LoadError.
    """
    info = bpf_attr.MapInfo()
    attr = bpf_attr.GetInfo(fd, ctypes.sizeof(info), ctypes.addressof(info))
    call(_OBJ_GET_INFO_BY_FD, attr, "describe a map")
    sizes = info.key_size, info.value_size, info.max_entries
    return info.type, *sizes, info.map_flags, info.name.decode()


def create_map(
    kind: int, key_bytes: int, value_bytes: int, entries: int, flags: int, name: str
) -> int:
    """Create a map; return its descriptor. Raises LoadError."""
    attr = bpf_attr.MapCreate(kind, key_bytes, value_bytes, entries, flags, map_name=name.encode())
    return call(_MAP_CREATE, attr, f"create map {name}")


def attach_raw_tracepoint(name: str, prog_fd: int) -> int:
    """Attach a loaded tracing program to its target; return the link. Raises LoadError."""
    return call(_RAW_TRACEPOINT_OPEN, bpf_attr.RawTracepoint(0, prog_fd, 0), f"attach {name}")


def link_iterator(prog_fd: int) -> int:
    """Return a link of an iterator program; what runs it is reading create_iterator()'s file."""
    attr = bpf_attr.LinkCreate(prog_fd=prog_fd, attach_type=_TRACE_ITER)
    return call(_LINK_CREATE, attr, "link an iterator")


def create_iterator(link_fd: int) -> int:
    """Return a file; reading it walks once, in this thread's namespaces. Raises LoadError."""
    return call(_ITER_CREATE, bpf_attr.IterCreate(link_fd, 0), "create an iterator")


def test_run(prog_fd: int, argument: int) -> None:
    """Run a program once with this as ctx[0] (5.10 and later). Raises LoadError.

    Linux commit 1b4d60ec162f ("bpf: Enable BPF_PROG_TEST_RUN for raw_tracepoint") (in v5.10).
    """
    context = ctypes.c_uint64(argument)
    attr = bpf_attr.TestRun(
        prog_fd=prog_fd,
        ctx_size_in=ctypes.sizeof(context),
        ctx_in=ctypes.addressof(context),
    )
    call(_PROG_TEST_RUN, attr, "test run")


# The verifier's log is asked for only after a refusal: writing it costs more than the verdict.
def _load(name: str, instructions: bytes, kind: dict[str, int]) -> int:
    try:
        return _try_load(name, instructions, kind, None)
    except LoadError as error:
        if error.errno == errno.EPERM:
            raise
    return _try_load(name, instructions, kind, ctypes.create_string_buffer(_LOG_BYTES))


def _try_load(
    name: str,
    instructions: bytes,
    kind: dict[str, int],
    log: ctypes.Array[ctypes.c_char] | None,
) -> int:
    code = ctypes.create_string_buffer(instructions, len(instructions))
    licence = ctypes.create_string_buffer(b"GPL")
    attr = bpf_attr.ProgLoad(
        insn_cnt=len(instructions) // 8,
        insns=ctypes.addressof(code),
        license=ctypes.addressof(licence),
        prog_name=name.encode()[:15],
        **kind,
    )
    if log is not None:
        attr.log_level, attr.log_size, attr.log_buf = 1, _LOG_BYTES, ctypes.addressof(log)
    try:
        return call(_PROG_LOAD, attr, f"load {name}")
    except LoadError as error:
        error.log = log.value.decode(errors="replace") if log is not None else ""
        raise


def call(command: int, attr: ctypes.Structure, what: str) -> int:
    """Do bpf(2) and return its result. Raises LoadError with `what` was tried."""
    number = _NR_BPF.get(platform.machine())
    if number is None:
        raise LoadError(errno.ENOSYS, f"bpf(2) on {platform.machine()}")
    # cmd, attr, size: the variadic tail must be longs.
    result = int(
        _LIBC.syscall(
            ctypes.c_long(number),
            ctypes.c_long(command),
            ctypes.byref(attr),
            ctypes.c_long(ctypes.sizeof(attr)),
        )
    )
    if result < 0:
        raise LoadError(ctypes.get_errno(), what)
    return result
