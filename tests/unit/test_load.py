# SPDX-License-Identifier: Apache-2.0
"""The loader child: what it asks of a kernel, and that every failure becomes one message."""

from __future__ import annotations

import ast
import errno
import json
import os
import re
import socket
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.data.btf.blobs import BLOBS
from tests.data.btf.make import OPTIONAL_TRACEPOINTS, TRACEPOINTS
from tracer.kernel import (
    bpf,
    capabilities,
    compiled,
    handoff,
    load,
    load_census,
    load_tracepoints,
)
from tracer.kernel.btf import KIND_FUNC, Btf, BtfTooNewError
from tracer.kernel.facts import facts
from tracer.kernel.instructions import with_constant
from tracer.kernel.load_tracepoints import OPTIONAL, PROGRAMS
from tracer.kernel.stages import StageError

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[2]
KERNEL: Final = ROOT / "tracer" / "kernel"
PROGRAM: Final = "".join(path.read_text() for path in (ROOT / "bpf").glob("*.[ch]"))
OLDEST_PYTHON: Final = (3, 9)  # bullseye's, which BCC's module is built for there

MARK: Final = load_tracepoints._TWIN_MARK
LD_IMM64, MOV_IMM, EXIT = 0x18, 0xB7, 0x95
MAP_FD: Final = 1  # BPF_PSEUDO_MAP_FD, as the source register

OPTIONS: Final = {
    "bpf_dir": str(ROOT / "bpf"),
    "rings": 2,
    "ring_pages": 64,
    "slots": 128,
    "conn_max": 1024,
    "strays_max": 64,
    "cpu_slots": 8,
    "sweep_slots": 32,
}


def insn(code: int, imm: int, *, dst: int = 1, src: int = 0) -> bytes:
    return struct.pack("=BBhI", code, src << 4 | dst, 0, imm)


def wide(value: int, *, src: int = 0) -> bytes:
    return insn(LD_IMM64, value & 0xFFFFFFFF, src=src) + insn(0, value >> 32, dst=0)


class FakeBpf:
    """What BCC makes of a text: maps and instructions, without a compiler."""

    def __init__(self, *, text: str, cflags: list[str]) -> None:
        self.text, self.cflags = text, cflags
        self.tree = Path(os.environ["BCC_KERNEL_SOURCE"])
        self.tree_was_there = (self.tree / "include/linux/kconfig.h").exists()

    def dump_func(self, name: bytes) -> bytes:
        """Return instructions that hold the mark, a map's descriptor and the function's name."""
        number = sum(name)
        return wide(MARK) + wide(MARK, src=MAP_FD) + insn(MOV_IMM, number) + insn(EXIT, 0)


class RefusingBpf:
    """BCC as it is when clang finds an error."""

    def __init__(self, **_given: object) -> None:
        raise Exception("Failed to compile BPF module <text>")  # noqa: TRY002 - as BCC does


class Kernel:
    """In place of bpf(2): keeps what is loaded and attached, in order."""

    def __init__(self, refuse: str | None = None, what: str = "load") -> None:
        self.loaded: dict[str, tuple[bytes, int]] = {}
        self.attached: list[str] = []
        self._refuse = what, refuse

    def load_tracing(self, name: str, instructions: bytes, attach_btf_id: int) -> int:
        """Return a number as a descriptor."""
        if ("load", name) == self._refuse:
            raise bpf.LoadError(errno.EACCES, f"load {name}", "x" * 5000 + "R1 invalid mem access")
        self.loaded[name] = (instructions, attach_btf_id)
        return 100 + len(self.loaded)

    def attach_raw_tracepoint(self, name: str, prog_fd: int) -> int:
        """Return a number as a descriptor."""
        if ("attach", name) == self._refuse:
            raise bpf.LoadError(errno.EACCES, f"attach {name}")
        self.attached.append(name)
        return prog_fd + 100


def fake_bcc(bpf_class: type) -> ModuleType:
    module = ModuleType("bcc")
    module.BPF = bpf_class  # type: ignore[attr-defined]
    return module


def use_bcc(monkeypatch: pytest.MonkeyPatch, bpf_class: type) -> None:
    monkeypatch.delenv("BCC_KERNEL_SOURCE", raising=False)
    monkeypatch.setattr(load, "import_bcc", lambda: fake_bcc(bpf_class))


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(compiled.SWITCH, "off")


def blob(kernel: str) -> Btf:
    return Btf(str(BLOBS[kernel]))


def in_place_of_the_kernel(monkeypatch: pytest.MonkeyPatch, kernel: Kernel) -> None:
    monkeypatch.setattr(bpf, "load_tracing", kernel.load_tracing)
    monkeypatch.setattr(bpf, "attach_raw_tracepoint", kernel.attach_raw_tracepoint)


@pytest.fixture
def channel() -> Iterator[tuple[socket.socket, int]]:
    """Give the resident's end, and the number of the other one, which main() closes."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(5)
    with ours:
        yield ours, theirs.detach()


# Constants in the instructions


def test_the_mark_is_replaced() -> None:
    assert with_constant(wide(MARK) + insn(EXIT, 0), MARK, 1) == wide(1) + insn(EXIT, 0)


@pytest.mark.parametrize(
    "code",
    [
        wide(MARK, src=MAP_FD),  # a map whose descriptor is that number
        wide(MARK, src=2),  # a map's value
        insn(MOV_IMM, MARK),  # a 32-bit immediate
        wide(MARK << 32),  # its upper half
        wide(MARK << 32 | MARK),
        wide(MARK + 1),
        insn(EXIT, 0),
        b"",
    ],
)
def test_nothing_else_is_replaced(code: bytes) -> None:
    assert with_constant(code, MARK, 1) == code


def test_every_mark_is_replaced_wherever_it_stands() -> None:
    """A second half may look like the start of another wide instruction."""
    trap = insn(LD_IMM64, 5) + insn(LD_IMM64, MARK)
    code = wide(MARK) + trap + wide(MARK, src=MAP_FD) + wide(MARK)
    assert with_constant(code, MARK, 0) == wide(0) + trap + wide(MARK, src=MAP_FD) + wide(0)


def test_the_mark_is_the_programs() -> None:
    assert f"0x{MARK:x} ll" in PROGRAM


# What a kernel has


@pytest.mark.parametrize("kernel", BLOBS)
def test_facts_are_what_the_kernel_has(kernel: str) -> None:
    version = tuple(map(int, kernel.split("-", maxsplit=1)[0].split(".")))
    macros = facts(blob(kernel))
    assert ("HAS_CURRENT_TASK_BTF" in macros) == (version >= (5, 11))
    assert ("HAS_RST_REASON" in macros) == (version >= (6, 10))


def test_every_fact_is_asked_for_by_the_programs() -> None:
    text = "".join(path.read_text() for path in (ROOT / "bpf").glob("*.[ch]"))
    known = {fact for name in BLOBS for fact in facts(blob(name))}
    assert {fact for fact in known if not re.search(rf"#if.*\b{fact}\b", text)} == set()


def test_programs_are_functions_of_the_text_at_known_tracepoints() -> None:
    for _name, function, tracepoint, _twin in (*OPTIONAL, *PROGRAMS):
        assert re.search(rf"^int {function}\(u64 \*ctx\)$", PROGRAM, re.MULTILINE)
        assert tracepoint in (*TRACEPOINTS, *OPTIONAL_TRACEPOINTS)


def test_every_program_has_its_twin_right_behind_it() -> None:
    """The twin must run after the first: tracepoints call in the order of attaching."""
    for first, twin in zip(PROGRAMS[::2], PROGRAMS[1::2], strict=True):
        name, function, tracepoint, _ = first
        assert twin == (f"{name}_twin", function, tracepoint, True)
        assert first[3] is False


# Stages


@pytest.mark.parametrize(
    ("held", "missing"),
    [
        (1 << 21, None),
        (1 << 39 | 1 << 38, None),
        ((1 << 41) - 1, None),
        (0, "CAP_BPF and CAP_PERFMON"),
        (1 << 39, "lacks CAP_PERFMON"),
        (1 << 38, "lacks CAP_BPF"),
    ],
)
def test_privilege_is_capabilities_not_a_user(
    monkeypatch: pytest.MonkeyPatch, held: int, missing: str | None
) -> None:
    monkeypatch.setattr(capabilities, "_status_field", lambda _name: f"{held:016x}")
    monkeypatch.setattr(capabilities, "_try_map", lambda: None)
    if missing is None:
        capabilities.check_privilege()
    else:
        with pytest.raises(StageError, match=missing) as caught:
            capabilities.check_privilege()
        assert caught.value.report["stage"] == "privilege"


def test_capabilities_of_a_user_namespace_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise bpf.LoadError(errno.EPERM, "create map trial")

    monkeypatch.setattr(capabilities, "_status_field", lambda _name: f"{1 << 21:016x}")
    monkeypatch.setattr(bpf, "create_map", refuse)
    with pytest.raises(StageError) as caught:
        capabilities.check_privilege()
    assert (caught.value.report["stage"], caught.value.report["errno"]) == ("load", errno.EPERM)


def test_a_real_bcc_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    module = fake_bcc(FakeBpf)
    monkeypatch.setitem(sys.modules, "bcc", module)
    assert load.import_bcc() is module


@pytest.mark.parametrize(
    ("module", "stage"), [(None, "bcc_missing"), (ModuleType("bcc"), "bcc_wrong")]
)
def test_no_bcc_and_the_wrong_one_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType | None, stage: str
) -> None:
    monkeypatch.setitem(sys.modules, "bcc", module)
    with pytest.raises(StageError) as caught:
        load.import_bcc()
    assert caught.value.report["stage"] == stage


@pytest.mark.parametrize("kernel", BLOBS)
def test_a_text_is_compiled_for_this_kernel(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use_bcc(monkeypatch, FakeBpf)
    module, made_by = load.compile_programs(blob(kernel), OPTIONS)
    made: Any = module
    assert made_by == {"bcc_version": "unknown", "compiled": "now"}
    assert made.tree_was_there
    assert not made.tree.exists()
    assert "int on_set_state(u64 *ctx)" in made.text
    assert ("#define HAS_file_f_ref 1" in made.text) == (kernel in ("6.18-amd64", "7.2-amd64"))
    flags = {"-DSLOTS=128", "-DRING_PAGES=64", "-DCONN_MAX=1024", "-DCPU_SLOTS=8"}
    assert flags <= set(made.cflags)
    assert f"-DPAGE_SIZE={os.sysconf('SC_PAGESIZE')}" in made.cflags


def test_every_size_of_the_programs_is_given() -> None:
    """What the text has in capitals and does not define is a macro on the command line."""
    given = {flag[2:].partition("=")[0] for flag in load.macros_of(OPTIONS) if flag[:2] == "-D"}
    assert {name for name in given if not re.search(rf"\b{name}\b", PROGRAM)} <= {"PAGE_SIZE"}


def test_a_compilers_refusal_is_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    use_bcc(monkeypatch, RefusingBpf)
    with pytest.raises(StageError, match="Failed to compile") as caught:
        load.compile_programs(blob("6.12-amd64"), OPTIONS)
    assert caught.value.report["stage"] == "compile"
    assert not Path(os.environ["BCC_KERNEL_SOURCE"]).exists()


def test_types_too_new_while_compiling_are_told_with_their_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise BtfTooNewError("a kind of type nobody knows")

    monkeypatch.setattr(load, "kernel_types", fail)
    with pytest.raises(StageError) as caught:
        load.compile_programs(blob("6.12-amd64"), OPTIONS)
    assert caught.value.report["stage"] == "btf_too_new"
    assert load.load_iterators(blob("6.12-amd64"), CENSUS_OPTIONS, {})[0] == {
        "census": caught.value.report
    }


def test_all_programs_are_loaded_and_attached_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, btf = Kernel(), blob("6.12-amd64")
    in_place_of_the_kernel(monkeypatch, kernel)
    module: Any = FakeBpf.__new__(FakeBpf)
    left_out, fds = load_tracepoints.attach(module.dump_func, btf)
    assert left_out == {}
    names = [name for name, *_ in (*OPTIONAL, *PROGRAMS)]
    assert kernel.attached == names
    assert set(fds) == {f"{what}:{name}" for what in ("prog", "link") for name in names}
    assert len(set(fds.values())) == 2 * len(names)
    for name, function, tracepoint, twin in PROGRAMS:
        instructions, btf_id = kernel.loaded[name]
        assert instructions.startswith(wide(int(twin)) + wide(MARK, src=MAP_FD))
        assert insn(MOV_IMM, sum(function.encode())) in instructions
        assert btf_id == btf.tracepoint(tracepoint)


def test_a_tracepoint_a_kernel_lacks_may_be_left_out_where_it_only_adds() -> None:
    """inet_sk_error_report is of v5.14, bpf_task_pt_regs() of v5.15 and its names x86-64's."""
    assert set(load_tracepoints.lacking(blob("5.10-amd64"))) == {"error_report", "signal"}
    assert load_tracepoints.lacking(blob("6.1-amd64")) == {}
    assert set(load_tracepoints.lacking(blob("6.12-arm64"))) == {"signal"}


@pytest.mark.parametrize("refused", [name for name, *_ in OPTIONAL])
@pytest.mark.parametrize("what", ["load", "attach"])
def test_what_only_adds_is_left_out_where_it_is_refused(
    what: str, refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(refuse=refused, what=what)
    in_place_of_the_kernel(monkeypatch, kernel)
    module: Any = FakeBpf.__new__(FakeBpf)
    left_out, fds = load_tracepoints.attach(module.dump_func, blob("6.12-amd64"))
    assert left_out == {refused: f"{what} {refused}: Permission denied"}
    names = [name for name, *_ in (*OPTIONAL, *PROGRAMS) if name != refused]
    assert set(fds) == {f"{what}:{name}" for what in ("prog", "link") for name in names}
    assert kernel.attached == names


def test_without_a_program_that_follows_states_nothing_is_traced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_place_of_the_kernel(monkeypatch, Kernel(refuse="set_state", what="attach"))
    module: Any = FakeBpf.__new__(FakeBpf)
    with pytest.raises(StageError, match="attach set_state: Permission denied"):
        load_tracepoints.attach(module.dump_func, blob("6.12-amd64"))


def test_a_refused_program_is_a_stage_with_the_end_of_its_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = Kernel(refuse="set_state_twin")
    in_place_of_the_kernel(monkeypatch, kernel)
    module: Any = FakeBpf.__new__(FakeBpf)
    with pytest.raises(StageError) as caught:
        load_tracepoints.attach(module.dump_func, blob("6.12-amd64"))
    report: dict[str, Any] = caught.value.report
    assert (report["stage"], report["errno"]) == ("load", errno.EACCES)
    assert report["message"] == "load set_state_twin: Permission denied"
    assert report["detail"].endswith("R1 invalid mem access")
    assert len(report["detail"]) == 2000


def test_a_missing_tracepoint_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    in_place_of_the_kernel(monkeypatch, Kernel())
    btf = blob("6.12-amd64")
    monkeypatch.setattr(btf, "find", lambda _name, _kind: None)
    module: Any = FakeBpf.__new__(FakeBpf)
    with pytest.raises(StageError, match="no tracepoint tcp_receive_reset"):
        load_tracepoints.attach(module.dump_func, btf)


# The program as a whole


def test_a_failure_becomes_the_message(
    monkeypatch: pytest.MonkeyPatch, channel: tuple[socket.socket, int]
) -> None:
    def fail(_options: dict[str, Any]) -> None:
        raise StageError("btf", "no types", 2, "more")

    monkeypatch.setattr(load, "load", fail)
    ours, theirs = channel
    assert load.main(["load.py", str(theirs), "{}"]) == 1
    report = {"stage": "btf", "message": "no types", "errno": 2, "detail": "more"}
    assert handoff.receive(ours) == ({"error": report}, {})


def test_a_success_is_handed_over(
    monkeypatch: pytest.MonkeyPatch, channel: tuple[socket.socket, int]
) -> None:
    monkeypatch.setattr(load, "load", lambda options: ({"got": options}, {"ring": 1}))
    ours, theirs = channel
    assert load.main(["load.py", str(theirs), json.dumps(OPTIONS)]) == 0
    result = handoff.receive(ours)
    assert result is not None
    manifest, fds = result
    assert manifest == {"got": OPTIONS}
    os.close(fds["ring"])


def test_a_resident_that_is_gone_ends_the_loader(
    monkeypatch: pytest.MonkeyPatch, channel: tuple[socket.socket, int]
) -> None:
    monkeypatch.setattr(load, "load", lambda _options: ({}, {}))
    ours, theirs = channel
    ours.close()
    assert load.main(["load.py", str(theirs), "{}"]) == 1


def test_it_runs_as_a_script_on_nothing_but_python(channel: tuple[socket.socket, int]) -> None:
    """Isolated and without any installed package: it gets as far as looking for BCC."""
    ours, theirs = channel
    asked = {**OPTIONS, "sets": ["teardown"]}
    result = subprocess.run(
        [sys.executable, "-I", "-S", str(KERNEL / "load.py"), str(theirs), json.dumps(asked)],
        pass_fds=[theirs],
        capture_output=True,
        timeout=30,
        check=False,
    )
    os.close(theirs)
    message = handoff.receive(ours)
    assert message is not None, result.stderr
    assert message[0]["error"]["stage"] in ("privilege", "bcc_missing", "btf")
    assert result.returncode == 1
    assert result.stderr == b""


def reached(name: str) -> set[str]:
    """Return the modules beside load.py that are imported with this one."""
    tree = ast.parse((KERNEL / f"{name}.py").read_text())
    found = {name}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = [(node.module or "").rpartition(".")[2], *(one.name for one in node.names)]
            for one in names:
                if one != name and (KERNEL / f"{one}.py").exists():
                    found |= reached(one)
    return found


def test_its_modules_are_of_the_oldest_python() -> None:
    """The distribution's Python may be older than ours: its syntax, annotations unread."""
    modules = reached("load")
    taking = {"source_text", "kallsyms", "btf", "facts", "header", "instructions"}
    caching = {"compiled", "capabilities", "load_census", "load_origins", "load_tracepoints"}
    hooking = {"hooking", "hooks", "kprobe"}
    assert modules == {"load", "bpf", "bpf_attr", *taking, *caching, "stages", "handoff", *hooking}
    for name in modules:
        text = (KERNEL / f"{name}.py").read_text()
        ast.parse(text, feature_version=OLDEST_PYTHON)
        assert "from __future__ import annotations" in text
        assert "slots=True" not in text
        assert not re.search(r"^\s*match \w+.*:$", text, re.MULTILINE)


SHORTEN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tracer.kernel.load import shorten_kallsyms
shorten_kallsyms()
print(len(Path("/proc/kallsyms").read_text().splitlines()))
"""


@pytest.mark.parametrize("user", [[], ["setpriv", "--reuid=65534", "--clear-groups"]])
def test_kallsyms_is_short_for_the_loader_alone(user: list[str]) -> None:
    """One line in the process that asked, if it may; this one and all others see the whole."""
    if os.geteuid():
        pytest.skip("needs root to make a mount namespace")
    root = str(Path(__file__).parents[2])
    command = [*user, "/usr/bin/python3", "-c", SHORTEN, root]
    shown = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd="/")
    assert (int(shown.stdout) == 1) is not bool(user)
    assert len(Path("/proc/kallsyms").read_text().splitlines()) > 1000


# The census


CENSUS_OPTIONS: Final = {**OPTIONS, "hz": 250, "states_max": 64, "ports_max": 128}
ITERATORS: Final = ("bpf_iter_tcp", "bpf_iter_task_file")


class FakeMaps(FakeBpf):
    """With maps, too."""

    def __getitem__(self, name: str) -> Any:
        """Return a map whose descriptor is the length of its name."""
        table = ModuleType(name)
        table.map_fd = len(name)  # type: ignore[attr-defined]
        return table


@pytest.mark.parametrize("kernel", BLOBS)
def test_iterators_are_loaded_and_linked(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    btf = blob(kernel)
    loaded: list[tuple[str, int]] = []
    use_bcc(monkeypatch, FakeMaps)

    def load_iterator(name: str, _code: bytes, btf_id: int) -> int:
        loaded.append((name, btf_id))
        return 100 + len(loaded)

    monkeypatch.setattr(bpf, "load_iterator", load_iterator)
    monkeypatch.setattr(bpf, "link_iterator", lambda fd: fd + 100)
    manifest, fds = load.load_iterators(btf, CENSUS_OPTIONS, {})
    assert manifest == {"census": "iterator"}
    ids = [btf.find(name, KIND_FUNC) for name in ITERATORS]
    assert loaded == [("sockets", ids[0]), ("files", ids[1])]
    assert fds["census:iter:sockets"] == fds["census:prog:sockets"] + 100
    assert {name for name in fds if ":map:" in name} == {
        f"census:map:{name}" for name in load_census.MAPS
    }


def test_the_census_finds_connections_in_the_maps_of_closes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its own maps of these names give way, in every program, to those that closes fill."""
    lead = struct.Struct("=BBhi")
    own = {"slots": 5, "conns": 6}
    monkeypatch.setattr(
        FakeMaps, "__getitem__", lambda _, name: SimpleNamespace(map_fd=own.get(name, 90))
    )
    code = b"".join(lead.pack(0x18, 1 << 4, 0, fd) + bytes(8) for fd in (5, 6, 90))
    monkeypatch.setattr(FakeMaps, "dump_func", lambda *_: code)
    use_bcc(monkeypatch, FakeMaps)
    loaded: list[bytes] = []

    def load_iterator(_name: str, code: bytes, _btf_id: int) -> int:
        loaded.append(code)
        return 7

    monkeypatch.setattr(bpf, "load_iterator", load_iterator)
    monkeypatch.setattr(bpf, "link_iterator", lambda fd: fd + 100)
    options = {**CENSUS_OPTIONS, "slots": 64, "conn_max": 64}
    load.load_iterators(blob("6.12-amd64"), options, {"slots": 31, "conns": 32})
    for made in loaded:
        assert [lead.unpack_from(made, at)[3] for at in (0, 16, 32)] == [31, 32, 90]


def test_a_kernel_without_iterators_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is loaded; sock_diag takes over, and knows why."""
    use_bcc(monkeypatch, FakeMaps)
    btf = blob("6.12-amd64")
    find = btf.find
    monkeypatch.setattr(
        btf, "find", lambda name, *kind: None if name in ITERATORS else find(name, *kind)
    )
    manifest, fds = load.load_iterators(btf, CENSUS_OPTIONS, {})
    assert fds == {}
    assert manifest["census"]["stage"] == "btf"


def test_a_refused_iterator_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise bpf.LoadError(errno.EPERM, "load sockets")

    use_bcc(monkeypatch, FakeMaps)
    monkeypatch.setattr(bpf, "load_iterator", refuse)
    manifest, fds = load.load_iterators(blob("6.12-amd64"), CENSUS_OPTIONS, {})
    assert fds == {}
    assert manifest["census"]["errno"] == errno.EPERM


def test_sets_are_loaded_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "check_privilege", lambda: None)
    monkeypatch.setattr(load, "bcc_file", lambda: "/bcc/__init__.py 1 2")
    monkeypatch.setattr(load, "read_btf", lambda: None)
    answers = {name: ({name: 1}, {f"{name}:fd": 7}) for name in load.SETS}
    for name in load.SETS:
        monkeypatch.setitem(load.SETS, name, lambda *_, name=name: answers[name])
    manifest, fds = load.load({**OPTIONS, "sets": ["census"]})
    assert manifest["census"] == 1
    assert set(fds) == {"census:fd"}
    assert "teardown" not in manifest
    everything = {"teardown:fd", "census:fd", "origins:fd"}
    assert set(load.load({**OPTIONS, "sets": list(load.SETS)})[1]) == everything
