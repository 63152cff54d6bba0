# SPDX-License-Identifier: Apache-2.0
"""BTF to C: the generated structures lie as the kernel's do, on every kernel."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.data.btf.blobs import BLOBS
from tracer.kernel import header
from tracer.kernel.btf import Btf, BtfError, Member
from tracer.kernel.header import MEMBERS, kernel_types
from tracer.kernel.load_census import CENSUS_MEMBERS
from tracer.kernel.source_text import _TYPES_H

if TYPE_CHECKING:
    from collections.abc import Callable

CC: Final = shutil.which("cc")
# What programs are compiled as does not matter, only that `bool` may be defined.
CFLAGS: Final = ("-std=gnu11", "-Wall", "-Werror", "-Wno-builtin-declaration-mismatch")

needs_cc = pytest.mark.skipif(CC is None, reason="no C compiler: install gcc or clang")
every_kernel = pytest.mark.parametrize("kernel", BLOBS)
both_tables = pytest.mark.parametrize("table", [MEMBERS, CENSUS_MEMBERS], ids=["closes", "census"])

Table = dict[str, dict[str, str]]

# Prints "struct field offset_bits size_bits" for each field: of a bitfield by filling it.
PROBE: Final = """
int printf(const char *format, ...);
#define PLAIN(s, f) \\
	printf(#s " " #f " %lu %lu\\n", offsetof(struct s, f) * 8, \\
		sizeof(((struct s *)0)->f) * 8)
#define BITS(s, f) \\
	do { \\
		static union { struct s s; u8 bytes[sizeof(struct s)]; } u; \\
		unsigned long first = 0, count = 0; \\
		u.s.f = ~0; \\
		for (unsigned long bit = sizeof(u) * 8; bit-- > 0;) { \\
			if (!(u.bytes[bit / 8] >> bit % 8 & 1)) \\
				continue; \\
			first = bit; \\
			count++; \\
		} \\
		printf(#s " " #f " %lu %lu\\n", first, count); \\
	} while (0)
"""


def expected(btf: Btf, table: Table = MEMBERS) -> dict[tuple[str, str], Member]:
    """Return what this kernel has of the table, optional members that are absent left out."""
    found = {
        (name, field): btf.member(name, path.rstrip("?"))
        for name, members in table.items()
        for field, path in members.items()
    }
    return {key: member for key, member in found.items() if member is not None}


def bits_of(member: Member) -> tuple[int, int]:
    return member.bit_offset, member.bit_size or member.byte_size * 8


def macros(btf: Btf) -> set[str]:
    return set(re.findall(r"^#define HAS_(\w+) 1$", kernel_types(btf), re.MULTILINE))


def compile_c(text: str, *options: str) -> None:
    assert CC is not None
    command = [CC, *CFLAGS, "-x", "c", *options, "-"]
    result = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr


def measured(text: str, fields: dict[tuple[str, str], Member], exe: Path) -> dict[str, list[int]]:
    """Compile a program that looks where the fields are, and run it."""
    lines = [
        f"\t{'BITS' if member.bit_size else 'PLAIN'}({name}, {field});"
        for (name, field), member in fields.items()
    ]
    body = "\n".join(("int main(void)", "{", *lines, "\treturn 0;", "}", ""))
    compile_c(_TYPES_H + text + PROBE + body, "-o", str(exe))
    output = subprocess.run([str(exe)], text=True, capture_output=True, check=True).stdout
    rows = (line.rsplit(" ", 2) for line in output.splitlines())
    return {key: [int(offset), int(size)] for key, offset, size in rows}


class Stub:
    """A kernel that has all of the table at one place, but for what a test changes."""

    def __init__(self, change: Callable[[str, str], bool], to: Member | None) -> None:
        self._change, self._to = change, to

    def member(self, name: str, path: str) -> Member | None:
        """Return a u32 at byte 8, or what the test put in its place."""
        return self._to if self._change(name, path) else Member(64, 0, 4, None)


@needs_cc
@every_kernel
@both_tables
def test_the_header_compiles(kernel: str, table: Table) -> None:
    compile_c(_TYPES_H + kernel_types(Btf(str(BLOBS[kernel])), table), "-fsyntax-only")


@needs_cc
@every_kernel
@both_tables
def test_every_field_lies_where_the_kernel_has_it(
    kernel: str, table: Table, tmp_path: Path
) -> None:
    """The compiler's own view of each field, bit by bit, against the kernel's BTF.

    hlist_nulls_node is two pointers, of which the walk over a bucket reads the first.
    """
    btf = Btf(str(BLOBS[kernel]))
    fields = expected(btf, table)
    seen = measured(kernel_types(btf, table), fields, tmp_path / "probe")
    wanted = {f"{name} {field}": list(bits_of(member)) for (name, field), member in fields.items()}
    wanted["inet_timewait_sock skc_nulls_node"][1] = 64
    assert seen == wanted


@every_kernel
def test_a_macro_for_each_member_there_is(kernel: str) -> None:
    btf = Btf(str(BLOBS[kernel]))
    assert macros(btf) == {f"{name}_{field}" for name, field in expected(btf)}


@pytest.mark.parametrize(
    ("kernel", "absent"),
    [
        ("5.10-amd64", {"file_f_ref", "tcp_sock_is_mptcp", "tcp_sock_dst_quick_ack"}),
        ("6.1-amd64", {"file_f_ref", "tcp_sock_dst_quick_ack"}),
        ("6.12-amd64", {"file_f_ref"}),
        (
            "6.12-arm64",
            {"file_f_ref", *(f"pt_regs_{name}" for name in ("di", "si", "dx", "orig_ax"))},
        ),
        ("6.18-amd64", {"file_f_count"}),
        ("7.2-amd64", {"file_f_count"}),
    ],
)
def test_what_a_kernel_lacks_has_no_macro(kernel: str, absent: set[str]) -> None:
    """file_ref is of v6.13, 5.10 here has no MPTCP, and registers have a machine's own names."""
    table = {f"{name}_{field}" for name, members in MEMBERS.items() for field in members}
    assert table - macros(Btf(str(BLOBS[kernel]))) == absent


@pytest.mark.parametrize(
    ("kernel", "declaration"),
    [
        ("5.10-amd64", r"u32 ack_ato;"),
        ("6.1-amd64", r"u32 ack_ato;"),
        ("6.12-amd64", r"u32 ack_ato : 8;"),
        ("6.12-arm64", r"u32 ack_ato : 8;"),
        ("6.18-amd64", r"u32 ack_ato : 8;"),
        ("7.2-amd64", r"u32 ack_ato : 8;"),
    ],
)
def test_the_delayed_acks_timeout_became_a_bitfield(kernel: str, declaration: str) -> None:
    """It made room for the last received flow label between 6.1 and 6.12."""
    assert declaration in kernel_types(Btf(str(BLOBS[kernel])))


@every_kernel
def test_types_are_what_the_programs_use_them_as(kernel: str) -> None:
    text = kernel_types(Btf(str(BLOBS[kernel])))
    for declaration in (
        "s32 sk_err;",
        "u32 rcv_nxt;",
        "u16 skc_dport;",
        "u8 skc_state;",
        "u32 skc_v6_daddr[4];",
        "u32 comm[4];",
        "struct socket *sk_socket;",
        "struct net *skc_net;",
        "struct cgroup *sk_cgroup;",
        "struct inet_hashinfo *hashinfo;",
        "u64 skc_nulls_node;",
    ):
        assert declaration in text
    assert ("s64 f_ref;" in text) != ("s64 f_count;" in text)


def test_a_missing_required_member_is_named() -> None:
    stub = Stub(lambda name, path: (name, path) == ("tcp_sock", "rcv_nxt"), None)
    with pytest.raises(BtfError, match="struct tcp_sock has no member rcv_nxt"):
        kernel_types(stub)  # type: ignore[arg-type]


def test_a_missing_struct_is_named_by_its_first_member() -> None:
    stub = Stub(lambda name, _path: name == "kernfs_node", None)
    with pytest.raises(BtfError, match="struct kernfs_node has no member id"):
        kernel_types(stub)  # type: ignore[arg-type]


def test_optional_members_may_all_be_missing() -> None:
    optional = {
        (name, path.rstrip("?"))
        for name, members in MEMBERS.items()
        for path in members.values()
        if path.endswith("?")
    }
    stub = Stub(lambda name, path: (name, path) in optional, None)
    text = kernel_types(stub)  # type: ignore[arg-type]
    assert "HAS_file_f_" not in text
    assert "is_mptcp" not in text
    assert "struct file {" in text


def test_a_size_nobody_knows_is_refused() -> None:
    """A member that became a structure must not be read as an integer."""
    stub = Stub(lambda _name, path: path == "snd_una", Member(64, 0, 24, None))
    with pytest.raises(BtfError, match="snd_una takes 24 bytes"):
        kernel_types(stub)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("member", "line"),
    [
        (Member(0, 0, 4, None), "struct { u32 a; };"),
        (Member(72, 0, 1, None), "struct { u8 pad_a[9]; u8 a; };"),
        (Member(64, 0, 8, "sock"), "struct { u8 pad_a[8]; struct sock *a; };"),
        (Member(64, 0, 8, "void"), "struct { u8 pad_a[8]; void *a; };"),
        (Member(0, 3, 4, None), "struct { u32 a : 3; };"),
        (Member(37, 3, 4, None), "struct { u8 pad_a[4]; u32 : 5; u32 a : 3; };"),
    ],
)
def test_one_field(member: Member, line: str) -> None:
    assert header._field("a", member).strip() == line


def test_every_word_of_the_table_is_used() -> None:
    """A field that no program reads costs nothing at run time, but a reader's time."""
    bpf = Path(__file__).parents[2] / "bpf"
    text = "".join(path.read_text() for path in bpf.glob("*.[ch]"))
    fields = {field for members in CENSUS_MEMBERS.values() for field in members}
    assert {field for field in fields if not re.search(rf"\b{field}\b", text)} == set()
