# SPDX-License-Identifier: Apache-2.0
"""The loader child: compile with BCC, load, attach, hand the descriptors over, exit.

Run as a script by the Python that has BCC (Debian's python3-bpfcc), never imported. Whatever
goes wrong becomes one message {stage, message, errno, detail} on the channel; the resident
turns it into what the user reads. Nothing is pinned: if either side dies, all is detached.

Usage: load.py CHANNEL_FD OPTIONS_JSON
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import shutil
import socket
import struct
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tracer.kernel import bpf, handoff
from tracer.kernel.btf import KIND_TYPEDEF, Btf, BtfError
from tracer.kernel.header import kernel_types
from tracer.kernel.source_text import assemble, make_kernel_tree

if TYPE_CHECKING:
    from types import ModuleType

    from bcc import BPF

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
_TWIN_MARK = 0x7477696E  # is_twin() in teardown.bpf.c
_LD_IMM64 = 0x18
_CLONE_NEWNS, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x20000, 0x1000, 0x4000, 0x40000
_CAP_BITS = {"CAP_BPF": 39, "CAP_PERFMON": 38}
_CAP_SYS_ADMIN = 21


class StageError(Exception):
    """A stage failed; becomes the message to the resident."""

    def __init__(self, stage: str, message: str, code: int = 0, detail: str = "") -> None:
        super().__init__(message)
        self.report = {"stage": stage, "message": message, "errno": code, "detail": detail}


def main(argv: list[str]) -> int:
    """Load as the options say and report on the channel; 0 when the hand-over was made."""
    try:
        manifest, fds = load(json.loads(argv[2]))
    except StageError as failed:
        manifest, fds = {"error": failed.report}, {}
    try:
        with socket.socket(fileno=int(argv[1])) as channel:
            handoff.send(channel, manifest, fds)
    except OSError:  # the resident is gone: with this process all is detached
        return 1
    return 1 if "error" in manifest else 0


def load(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the manifest and the descriptors. Raises StageError."""
    check_privilege()
    bcc = import_bcc()
    btf = read_btf()
    module = compile_programs(bcc, btf, options)
    fds = {f"ring:{n}": module[f"closes_{n}"].map_fd for n in range(options["rings"])}
    fds["counts"] = module["counts"].map_fd
    fds["prog:sweep"] = load_sweep(module)
    fds.update(attach_all(module, btf))
    reset_reasons = {number: name for name, number in btf.enum("sk_rst_reason").items()}
    return {
        "programs": [name for name, *_ in PROGRAMS],
        "mechanism": "tp_btf",
        "bcc_version": str(getattr(bcc, "__version__", "unknown")),
        "python": platform.python_version(),
        "rings": options["rings"],
        "slots": options["slots"],
        "ring_bytes": options["ring_pages"] * os.sysconf("SC_PAGESIZE"),
        "conn_max": options["conn_max"],
        "cpu_slots": options["cpu_slots"],
        "reset_reasons": reset_reasons,
    }, fds


def check_privilege() -> None:
    """Raise StageError when this process lacks what loading needs."""
    held = int(_status_field("CapEff"), 16)
    if held >> _CAP_SYS_ADMIN & 1:
        return
    missing = [name for name, bit in _CAP_BITS.items() if not held >> bit & 1]
    if missing:
        raise StageError("privilege", f"this process lacks {' and '.join(missing)}", 1)


def _status_field(name: str) -> str:
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return value.strip()
    return "0"


def import_bcc() -> ModuleType:
    """Return BCC's module; tells the unrelated one of the same name on PyPI from it."""
    try:
        import bcc  # noqa: PLC0415 - its absence has a message of its own
    except (ImportError, OSError) as error:  # OSError: the module is there, libbcc.so is not
        raise StageError("bcc_missing", str(error)) from error
    if not hasattr(bcc, "BPF"):
        where = getattr(bcc, "__file__", None) or "a namespace package"
        raise StageError("bcc_wrong", f"{where} is not the BPF Compiler Collection")
    return bcc


def read_btf() -> Btf:
    """Return the running kernel's BTF."""
    try:
        return Btf()
    except BtfError as error:
        raise StageError("btf", str(error)) from error


def compile_programs(bcc: ModuleType, btf: Btf, options: dict[str, Any]) -> BPF:
    """Return BCC's compiled module; its maps exist, its programs are not loaded yet."""
    try:
        text = assemble(Path(options["bpf_dir"]), "teardown.bpf.c", kernel_types(btf), facts(btf))
    except BtfError as error:
        raise StageError("btf", str(error)) from error
    tree = Path(tempfile.mkdtemp(prefix="fourwave-"))
    try:
        make_kernel_tree(tree)
        os.environ["BCC_KERNEL_SOURCE"] = str(tree)
        module: BPF = bcc.BPF(text=text, cflags=compile_flags(options))
    except Exception as error:  # BCC raises bare Exception for all it can say
        raise StageError("compile", str(error)) from error
    finally:
        shutil.rmtree(tree, ignore_errors=True)
    return module


def facts(btf: Btf) -> list[str]:
    """Return the macros that say what this kernel has beyond members of structures."""
    helpers = btf.enum("bpf_func_id")
    has = {
        "HAS_RST_REASON": bool(btf.enum("sk_rst_reason")),
        "HAS_CURRENT_TASK_BTF": "BPF_FUNC_get_current_task_btf" in helpers,
    }
    return [name for name, there in has.items() if there]


def compile_flags(options: dict[str, Any]) -> list[str]:
    """Return the sizes as macros, and no warnings about BCC's own headers."""
    page = os.sysconf("SC_PAGESIZE")
    return [
        f"-DCONN_MAX={options['conn_max']}",
        f"-DSLOTS={options['slots']}",
        f"-DSWEEP_SLOTS={options['sweep_slots']}",
        f"-DRINGS={options['rings']}",
        f"-DRING_PAGES={options['ring_pages']}",
        f"-DCPU_SLOTS={options['cpu_slots']}",
        f"-DPAGE_SIZE={page}",
        "-Wno-everything",
    ]


def load_sweep(module: BPF) -> int:
    """Return the descriptor of the program that looks for connections without a socket."""
    try:
        return bpf.load_for_test_run("sweep", module.dump_func(b"on_sweep"))
    except bpf.LoadError as error:
        raise refused(error) from error


def refused(error: bpf.LoadError) -> StageError:
    """Return what to report when the kernel refuses a program."""
    return StageError(
        "load", f"{error.filename}: {error.strerror}", error.errno or 0, error.log[-2000:]
    )


def attach_all(module: BPF, btf: Btf) -> dict[str, int]:
    """Load and attach every program; return program and link descriptors by name."""
    loads = [Load(module, btf, *program) for program in PROGRAMS]
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
        self, module: BPF, btf: Btf, name: str, function: str, tracepoint: str, twin: bool
    ) -> None:
        """Look everything up; raises StageError when this kernel has no such tracepoint."""
        super().__init__(name=name, daemon=True)
        btf_id = btf.find(f"btf_trace_{tracepoint}", KIND_TYPEDEF)
        if btf_id is None:
            raise StageError("btf", f"this kernel has no tracepoint {tracepoint}")
        self._btf_id = btf_id
        self._code = with_constant(module.dump_func(function.encode()), _TWIN_MARK, int(twin))
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


def with_constant(code: bytes, mark: int, value: int) -> bytes:
    """Return the instructions with every 64-bit immediate equal to `mark` replaced."""
    out = bytearray(code)
    at = 0
    while at < len(out):
        wide = out[at] == _LD_IMM64
        plain = wide and not out[at + 1] >> 4  # a source register says: a map, not a number
        if plain and struct.unpack_from("=I4xI", out, at + 4) == (mark, 0):
            struct.pack_into("=I", out, at + 4, value)
        at += 16 if wide else 8
    return bytes(out)


def shorten_kallsyms() -> None:
    """Let this process alone see one line in /proc/kallsyms.

    BCC reads all of it at every compile, to learn whether the kernel has
    bpf_probe_read_kernel(), and that takes as long as the compile itself. A mount namespace
    of this process's own, which is about to end, shows it that one answer (the helper is older
    than the programs' type). Where that is not allowed, BCC just reads on.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS):
        return
    # Not for others to see: mounts may be shared between namespaces.
    libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None)
    with tempfile.NamedTemporaryFile("w") as stand_in:
        stand_in.write("ffffffff81000000 T bpf_probe_read_kernel\n")
        stand_in.flush()
        file = os.fsencode(stand_in.name)
        libc.mount(file, b"/proc/kallsyms", None, ctypes.c_ulong(_MS_BIND), None)


if __name__ == "__main__":
    shorten_kallsyms()
    code = main(sys.argv)
    # Not sys.exit(): BCC's exit handler would detach what was just handed over.
    os._exit(code)
