# SPDX-License-Identifier: Apache-2.0
"""Names of addresses: of this very process, of files with little in them, of hostile ones."""

from __future__ import annotations

import ctypes
import io
import lzma
import mmap
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from tracer.kernel import elf_frames, elf_symbols, symbols
from tracer.kernel.elf_frames import read_call_frames
from tracer.kernel.elf_symbols import Functions, read_functions
from tracer.kernel.processes import start_ticks
from tracer.kernel.symbols import Symbols

if TYPE_CHECKING:
    from collections.abc import Iterator

LIBC: Final = ctypes.CDLL(None)
C_TEXT: Final = """
static __attribute__((noinline)) int hidden(int n) { __asm__(""); return n + 1; }
int shown(int n) { return hidden(n) * 2; }
int main(int argc, char **argv) { return shown(argc); }
"""


def address_of(name: str) -> int:
    """Return where a function of libc is in this process."""
    address = ctypes.cast(LIBC[name], ctypes.c_void_p).value
    assert address is not None
    return address


def started_ns() -> int:
    """Return when this process started, to the tick."""
    ticks = start_ticks(Path("/proc/self/stat").read_text())
    return ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def test_a_function_of_a_library_is_named() -> None:
    """The address after a call; the file is found by what is mapped, not by its name."""
    address = address_of("getservbyname")
    (frame,) = Symbols().frames(os.getpid(), started_ns(), [address + 5]) or ()
    assert (frame.symbol, frame.offset) == ("getservbyname", 5)
    assert (frame.module or "").startswith("libc")


def test_what_is_no_code_ends_the_stack() -> None:
    """A function without a frame pointer leads astray: what comes then is nothing known."""
    data = ctypes.create_string_buffer(8)
    address = address_of("getservbyname") + 5
    stack = [address, ctypes.addressof(data), address]
    frames = Symbols().frames(os.getpid(), started_ns(), stack)
    assert [frame.symbol for frame in frames or ()] == ["getservbyname"]


def test_another_process_of_the_same_number_is_not_asked() -> None:
    assert Symbols().frames(os.getpid(), started_ns() + 10**9, [1]) is None
    assert Symbols().frames(2**22 + 1, 0, [1]) is None


def test_who_has_ended_and_was_not_waited_for_is_gone() -> None:
    """It has its number and its start still, and no code."""
    ended = subprocess.Popen(["true"])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    ticks = start_ticks(Path(f"/proc/{ended.pid}/stat").read_text())
    start_ns = ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    assert Symbols().frames(ended.pid, start_ns, [1]) is None
    ended.wait()


@pytest.fixture
def code() -> Iterator[int]:
    """Memory that could be executed, of no file."""
    rights = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    with mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE, prot=rights) as memory:
        view = ctypes.c_char.from_buffer(memory)
        yield ctypes.addressof(view)
        del view


@pytest.fixture
def perf_map() -> Iterator[Path]:
    """Where this process would name such code."""
    path = Path(f"/tmp/perf-{os.getpid()}.map")  # noqa: S108 - its fixed place
    path.unlink(missing_ok=True)
    yield path
    path.unlink(missing_ok=True)


def named(address: int) -> list[tuple[str | None, int]]:
    """Return what one address of this process is called."""
    frames = Symbols().frames(os.getpid(), started_ns(), [address]) or ()
    return [(frame.symbol, frame.offset) for frame in frames]


def test_a_perf_map_names_compiled_code(code: int, perf_map: Path) -> None:
    """The later of two lines counts; nonsense is skipped; without it there is the address."""
    assert named(code + 5) == [(None, code + 5)]
    perf_map.write_text(
        f"{code:x} 10 old\n{code:x} 10 py::handle:/srv/my app.py\nzz 1 x\n{code:x}\n"
    )
    assert named(code + 5) == [("py::handle:/srv/my app.py", 5)]
    assert named(code + 0x20) == [(None, code + 0x20)]


def test_a_perf_map_that_is_no_file_of_the_process_is_not_read(code: int, perf_map: Path) -> None:
    """A pipe would block, a link lead elsewhere."""
    os.mkfifo(perf_map)
    assert named(code + 5) == [(None, code + 5)]
    perf_map.unlink()
    perf_map.symlink_to("/etc/passwd")
    assert named(code + 5) == [(None, code + 5)]


# --- files ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program with a function that is not exported."""
    missing = [tool for tool in ("cc", "strip", "objcopy", "nm") if not shutil.which(tool)]
    if missing:
        pytest.skip(f"no {', '.join(missing)} (gcc, binutils)")
    made = tmp_path_factory.mktemp("elf") / "program"
    command = ["cc", "-O1", "-rdynamic", "-x", "c", "-o", str(made), "-"]
    subprocess.run(command, input=C_TEXT, text=True, check=True, timeout=60)
    return made


def functions_of(path: Path) -> Functions:
    """Read a file."""
    with path.open("rb") as file:
        found = read_functions(file)
    assert found is not None
    return found


def place(program: Path, name: str) -> int:
    """Return the address nm has for a function."""
    lines = subprocess.run(["nm", program], check=True, capture_output=True, text=True).stdout
    return next(
        int(line.split()[0], 16) for line in lines.splitlines() if line.endswith(f" {name}")
    )


def test_symtab_and_dynsym(program: Path, tmp_path: Path) -> None:
    """All functions by .symtab; of a stripped program those that are exported."""
    hidden, shown = place(program, "hidden"), place(program, "shown")
    whole = functions_of(program)
    assert (whole.at(hidden + 1), whole.at(shown)) == (("hidden", 1), ("shown", 0))
    bare = tmp_path / "bare"
    subprocess.run(["strip", "-o", bare, program], check=True)
    stripped = functions_of(bare)
    assert (stripped.at(hidden), stripped.at(shown + 1)) == (None, ("shown", 1))


def test_gnu_debugdata(program: Path, tmp_path: Path) -> None:
    """A compressed table of what is not exported, as Fedora's packages have."""
    packed, bare = tmp_path / "packed.xz", tmp_path / "bare"
    packed.write_bytes(lzma.compress(program.read_bytes()))
    words = ["--strip-all", "--add-section", f".gnu_debugdata={packed}"]
    subprocess.run(["objcopy", *words, program, bare], check=True)
    assert functions_of(bare).at(place(program, "hidden")) == ("hidden", 0)


def test_where_a_function_returns_to(program: Path) -> None:
    """At its first instruction the return address is what was pushed last."""
    if platform.machine() != "x86_64":
        pytest.skip("the stack pointer's number is known for x86-64 alone")
    with program.open("rb") as file:
        found = read_call_frames(file)
    assert found is not None
    assert found.return_offset(place(program, "shown")) == 0
    assert found.return_offset(1 << 40) is None
    address = address_of("getservbyname") + 1  # of this process: in libc
    assert Symbols().return_offset(os.getpid(), started_ns(), address) == 0
    assert Symbols().return_offset(os.getpid(), 0, address) is None


def test_offsets_become_addresses(program: Path) -> None:
    """By the segments: code lies elsewhere in memory than in the file."""
    found = functions_of(program)
    data = program.read_bytes()
    assert found.address(0) == 0
    assert found.address(len(data) + 4096) == len(data) + 4096


@settings(deadline=None)
@given(some.binary(max_size=400))
def test_any_bytes_name_nothing(junk: bytes) -> None:
    for data in (junk, b"\x7fELF\x02\x01\x01" + junk):
        found = read_functions(io.BytesIO(data))
        assert found is None or found.at(0) is None
        frames = read_call_frames(io.BytesIO(data))
        assert frames is None or frames.return_offset(0) is None


def test_a_file_that_claims_too_much_is_left_alone(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More sections than are gone through, more of a function than is read, a bomb of lzma."""
    shown = place(program, "shown")
    for module, bound in ((elf_frames, "FUNCTION_BYTES_MAX"), (elf_symbols, "PARTS_MAX")):
        monkeypatch.setattr(module, bound, 1)
        with program.open("rb") as file:
            frames = read_call_frames(file)
            assert frames is None or frames.return_offset(shown) is None
    with program.open("rb") as file:
        assert read_functions(file) is None


def test_damage_is_no_error(program: Path) -> None:
    """A program cut or overwritten anywhere."""
    data = program.read_bytes()
    for at in range(0, len(data), 509):
        damaged = data[:at] + b"\xff" * 64 + data[at + 64 :]
        for made in (damaged, data[:at]):
            found = read_functions(io.BytesIO(made))
            assert found is None or found.at(1) is None or found.address(1) >= 0
            frames = read_call_frames(io.BytesIO(made))
            assert frames is None or (frames.return_offset(at) or 0) < 1 << 64


def test_tables_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of many files are forgotten again."""
    monkeypatch.setattr(symbols, "FILES_MAX", 1)
    found = Symbols()
    stack = [
        address_of("getservbyname") + 1,
        ctypes.cast(ctypes.pythonapi.Py_IncRef, ctypes.c_void_p).value or 0,
    ]
    assert found.frames(os.getpid(), started_ns(), stack)
    assert len(found._functions) == 1
