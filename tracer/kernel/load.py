# SPDX-License-Identifier: Apache-2.0
"""The loader child: compile with BCC, load, attach, hand the descriptors over, exit.

Run as a script by the Python that has BCC (Debian's python3-bpfcc), never imported. Whatever
goes wrong becomes one message {stage, message, errno, detail} on the channel; the resident
turns it into what the user reads. Nothing is pinned: if either side dies, all is detached.

Usage: load.py CHANNEL_FD OPTIONS_JSON
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import platform
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tracer.kernel import bpf, compiled, handoff, load_census, load_origins, load_tracepoints
from tracer.kernel.btf import Btf, BtfError
from tracer.kernel.capabilities import allow_locked_memory, check_privilege
from tracer.kernel.facts import facts
from tracer.kernel.header import MEMBERS, kernel_types
from tracer.kernel.hooking import attach_hooks
from tracer.kernel.instructions import with_maps
from tracer.kernel.kallsyms import shorten_kallsyms
from tracer.kernel.source_text import assemble, make_kernel_tree
from tracer.kernel.stages import StageError, refused, unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    from tracer.kernel.compiled import Module

    Loaded = tuple[dict[str, Any], dict[str, int]]
    LoadSet = Callable[[Btf, dict[str, Any], dict[str, int]], Loaded]

# No warnings about BCC's own headers, and nothing for a debugger. BCC optimises what clang gives it
# with all of LLVM's passes: where clang does so first, a compile takes a third longer.
CFLAGS = ("-Wno-everything", "-g0", "-Xclang", "-disable-llvm-passes")


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
    """Return the manifest and the descriptors of the sets of programs asked for.

    Raises StageError.
    """
    allow_locked_memory()
    check_privilege()
    if not bcc_file():
        import_bcc()  # says what is wrong, and that another Python may have it
    btf = read_btf()
    manifest: dict[str, Any] = {"python": platform.python_version()}
    fds: dict[str, int] = {}
    shared: dict[str, int] = {}
    for name in options["sets"]:
        more, theirs = SETS[name](btf, options, shared)
        manifest |= more
        fds |= theirs
    return manifest, fds


def load_teardown(
    btf: Btf, options: dict[str, Any], shared: dict[str, int]
) -> tuple[dict[str, Any], dict[str, int]]:
    """Load what follows closes; `shared` gets the maps of connections. Raises StageError."""
    module, made_by = compile_programs(btf, options)
    shared.update({name: module[name].map_fd for name in load_census.SHARED})
    fds = {f"ring:{n}": module[f"closes_{n}"].map_fd for n in range(options["rings"])}
    fds |= {name: module[name].map_fd for name in ("counts", "strays", "time_waits")}
    fds["prog:sweep"] = load_sweep(module)
    hooks, hook_fds = attach_hooks(module.dump_func, btf)
    fds.update(hook_fds)
    left_out, tracepoint_fds = load_tracepoints.attach(module.dump_func, btf)
    fds.update(tracepoint_fds)
    reset_reasons = {number: name for name, number in btf.enum("sk_rst_reason").items()}
    return {
        **made_by,
        "programs": [name.removeprefix("prog:") for name in tracepoint_fds if "prog:" in name],
        "left_out": left_out,
        "mechanism": "tp_btf",
        "hooks": hooks,
        **{name: options[name] for name in ("rings", "slots", "conn_max", "cpu_slots")},
        "ring_bytes": options["ring_pages"] * os.sysconf("SC_PAGESIZE"),
        "reset_reasons": reset_reasons,
    }, fds


def optional(name: str) -> Callable[[LoadSet], LoadSet]:
    """Have what refuses to be loaded told under this name: it is no failure of the rest."""

    def decorate(load: LoadSet) -> LoadSet:
        @functools.wraps(load)
        def or_why_not(btf: Btf, options: dict[str, Any], shared: dict[str, int]) -> Loaded:
            try:
                return load(btf, options, shared)
            except StageError as failed:
                return {name: failed.report}, {}
            except bpf.LoadError as error:
                return {name: refused(error).report}, {}
            except BtfError as error:
                return {name: unreadable(error).report}, {}

        return or_why_not

    return decorate


@optional("census")
def load_iterators(btf: Btf, options: dict[str, Any], shared: dict[str, int]) -> Loaded:
    """Load what takes the census. Where the kernel refuses it there is sock_diag.

    With maps in `shared` it sees the connections that are followed, too.
    """
    text = load_census
    macros = text.macros_of(options, beside_closes=bool(shared))
    about = text.MAIN, text.CENSUS_MEMBERS, macros, (*text.MAPS, *shared)
    module, _ = compile_text(btf, options, *about, variant="-beside-closes" if shared else "")
    maps = {name: module[name].map_fd for name in text.MAPS}
    others = {module[name].map_fd: fd for name, fd in shared.items()}
    return {"census": "iterator"}, text.attach(
        maps, lambda name: with_maps(module.dump_func(name), others), btf
    )


@optional("origins")
def load_stacks(btf: Btf, options: dict[str, Any], _shared: dict[str, int]) -> Loaded:
    """Load what notes the stacks sockets come from."""
    text = load_origins
    text.check(btf)
    about = text.MAIN, text.ORIGIN_MEMBERS, text.macros_of(options), text.MAPS
    module, _ = compile_text(btf, options, *about)
    maps = {name: module[name].map_fd for name in text.MAPS}
    told, fds = text.attach(maps, module.dump_func, btf)
    return {"origins": told}, fds


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


def bcc_file() -> str:
    """Return which BCC an import would bring, which takes long itself; empty: not known."""
    try:
        spec = importlib.util.find_spec("bcc")
        if spec is None or spec.origin is None:
            return ""
        found = Path(spec.origin).stat()
    except (OSError, ValueError):
        return ""
    return f"{spec.origin} {found.st_mtime_ns} {found.st_size}"


def read_btf() -> Btf:
    """Return the running kernel's BTF."""
    try:
        return Btf()
    except BtfError as error:
        raise unreadable(error) from error


def compile_programs(btf: Btf, options: dict[str, Any]) -> tuple[Module, dict[str, Any]]:
    """Return the compiled programs that follow closes."""
    rings = (f"closes_{n}" for n in range(options["rings"]))
    maps = ("counts", "strays", "time_waits", *load_census.SHARED, *rings)
    return compile_text(btf, options, "teardown.bpf.c", MEMBERS, macros_of(options), maps)


def compile_text(
    btf: Btf,
    options: dict[str, Any],
    main: str,
    members: dict[str, dict[str, str]],
    macros: list[str],
    maps: Sequence[str],
    variant: str = "",
) -> tuple[Module, dict[str, Any]]:
    """Return a compiled text, and what the manifest tells of its making. Raises StageError.

    Its maps exist, its programs are not loaded yet. `maps`: those that will be asked for.
    `variant`: what tells it from others of the same `main`, where each is kept for itself.
    """
    try:
        types = kernel_types(btf, members)
        text = assemble(Path(options["bpf_dir"]), main, types, facts(btf))
    except BtfError as error:
        raise unreadable(error) from error
    compiler, cflags = bcc_file(), [*macros, *CFLAGS]
    key = compiled.fingerprint(text, cflags, compiler)
    name = main + variant
    kept = compiled.restore(name, key) if compiler else None
    if kept is not None:
        return kept, {"bcc_version": kept.bcc_version, "compiled": "before"}
    bcc = import_bcc()
    version = str(getattr(bcc, "__version__", "unknown"))
    module = run_bcc(bcc, text, cflags)
    if compiler:
        compiled.keep(name, key, module, text, maps, version)
    return module, {"bcc_version": version, "compiled": "now"}


def run_bcc(bcc: ModuleType, text: str, cflags: list[str]) -> Module:
    """Return BCC's compiled module. Raises StageError."""
    tree = Path(tempfile.mkdtemp(prefix="fourwave-"))
    try:
        make_kernel_tree(tree)
        os.environ["BCC_KERNEL_SOURCE"] = str(tree)
        module: Module = bcc.BPF(text=text, cflags=cflags)
    except Exception as error:  # BCC raises bare Exception for all it can say
        raise StageError("compile", str(error)) from error
    finally:
        shutil.rmtree(tree, ignore_errors=True)
    return module


def macros_of(options: dict[str, Any]) -> list[str]:
    """Return the sizes as macros."""
    return [
        f"-DCONN_MAX={options['conn_max']}",
        f"-DSLOTS={options['slots']}",
        f"-DSWEEP_SLOTS={options['sweep_slots']}",
        f"-DRINGS={options['rings']}",
        f"-DRING_PAGES={options['ring_pages']}",
        f"-DCPU_SLOTS={options['cpu_slots']}",
        f"-DSTRAYS_MAX={options['strays_max']}",
        f"-DPAGE_SIZE={os.sysconf('SC_PAGESIZE')}",
    ]


def load_sweep(module: Module) -> int:
    """Return the descriptor of the program that looks for connections without a socket."""
    try:
        return bpf.load_for_test_run("sweep", module.dump_func(b"on_sweep"))
    except bpf.LoadError as error:
        raise refused(error) from error


SETS = {"teardown": load_teardown, "census": load_iterators, "origins": load_stacks}


if __name__ == "__main__":
    shorten_kallsyms()
    code = main(sys.argv)
    # Not sys.exit(): BCC's exit handler would detach what was just handed over.
    os._exit(code)
