# SPDX-License-Identifier: Apache-2.0
"""Types of real kernels are read exactly; what is no BTF is refused, and crashes nothing."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.data.btf.blobs import BLOBS
from tests.data.btf.make import FUNC_PROTO, HEADER, PTR, TRACEPOINTS, TYPEDEF, Whole
from tracer.kernel.btf import (
    KIND_ENUM,
    KIND_FUNC,
    KIND_TYPEDEF,
    Btf,
    BtfError,
    BtfTooNewError,
    Member,
)

ROOT: Final = Path(__file__).parents[2]
ATO: Final = "inet_conn.icsk_ack.ato"

INT, STRUCT, CONST = 1, 4, 10

# What a program must survive: any prefix, any flipped byte. One child for all, since a crash
# in libbpf would be a signal. Only BtfError may come out of what reads a kernel's types.
SURVIVE: Final = """
import random, sys
from pathlib import Path
from tracer.kernel.btf import Btf, BtfError
from tracer.kernel.header import kernel_types
from tracer.kernel.facts import facts

def read(path):
    try:
        btf = Btf(str(path))
        facts(btf)
        kernel_types(btf)
    except BtfError:
        return 0
    return 1

blob, path, kind = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]), sys.argv[3]
dice = random.Random(7)
if kind == "prefix":
    variants = [blob[:n] for n in (*range(64), *range(64, len(blob), 97))]
elif kind == "flips":
    variants = []
    for _ in range(400):
        bent = bytearray(blob)
        for _ in range(dice.choice((1, 1, 2, 30))):
            bent[dice.randrange(24, len(bent))] = dice.randrange(256)
        variants.append(bytes(bent))
else:
    variants = [dice.randbytes(n) for n in range(0, 4096, 64)]
good = 0
for variant in variants:
    path.write_bytes(variant)
    good += read(path)
print(len(variants), good)
"""


def member(kernel: str, name: str, path: str) -> Member | None:
    return Btf(str(BLOBS[kernel])).member(name, path)


# A BTF of these types: (name, kind, vlen, size or type, further words). Names in words are
# given as text.
def small_btf(
    path: Path, *types: tuple[str, int, int, int, list[int | str]], bitfields: bool = False
) -> Btf:
    text, words = b"\0", []

    def offset(name: str) -> int:
        nonlocal text
        text += name.encode() + b"\0"
        return len(text) - len(name) - 1 if name else 0

    for name, kind, vlen, size, rest in types:
        flag = 1 << 31 if bitfields and kind == STRUCT else 0
        words += [offset(name), flag | kind << 24 | vlen, size]
        words += [offset(word) if isinstance(word, str) else word for word in rest]
    body = struct.pack(f"<{len(words)}I", *words)
    head = HEADER.pack(0xEB9F, 1, 0, HEADER.size, 0, len(body), len(body), len(text))
    path.write_bytes(head + body + text)
    return Btf(str(path))


def test_types_this_libbpf_does_not_know_are_told_apart(tmp_path: Path) -> None:
    """A blob that begins as BTF does and is refused is a newer kernel's, not a missing one."""
    blob = bytearray(BLOBS["6.12-amd64"].read_bytes())
    blob[24 + 7] = 0x1F  # the kind of the first type: there is none of this number
    newer = tmp_path / "btf"
    newer.write_bytes(blob)
    with pytest.raises(BtfTooNewError, match="does not know all of its types"):
        Btf(str(newer))


def test_all_the_kernels_are_here() -> None:
    assert {name.split("-")[0] for name in BLOBS} >= {"5.10", "6.1", "6.12", "6.18", "7.2"}
    assert {name.split("-")[1] for name in BLOBS} == {"amd64", "arm64"}


@pytest.mark.parametrize(
    ("kernel", "name", "path", "lies"),
    [
        ("5.10-amd64", "tcp_sock", ATO, (1244 * 8, 0, 4)),
        ("6.1-amd64", "tcp_sock", ATO, (1292 * 8, 0, 4)),
        ("6.12-amd64", "tcp_sock", ATO, (1300 * 8, 8, 4)),
        ("6.12-arm64", "tcp_sock", ATO, (1300 * 8, 8, 4)),
        ("6.18-amd64", "tcp_sock", ATO, (1260 * 8, 8, 4)),
        ("7.2-amd64", "tcp_sock", ATO, (1292 * 8, 8, 4)),
        ("5.10-amd64", "sock", "sk_shutdown", (626 * 8, 0, 1)),
        ("7.2-amd64", "sock", "sk_shutdown", (591 * 8, 0, 1)),
        ("6.12-amd64", "task_struct", "comm", (2976 * 8, 0, 16)),
        ("6.12-arm64", "task_struct", "comm", (1920 * 8, 0, 16)),
        ("6.18-amd64", "file", "f_ref.refcnt", (176 * 8, 0, 8)),
    ],
)
def test_members_lie_where_the_kernel_put_them(
    kernel: str, name: str, path: str, lies: tuple[int, int, int]
) -> None:
    """Offset and size in bits, size in bytes; the numbers are from the whole BTFs."""
    assert member(kernel, name, path) == Member(*lies, None)


@pytest.mark.parametrize(
    ("name", "path", "pointee"),
    [
        ("sock", "sk_socket", "socket"),
        ("task_struct", "cred", "cred"),  # const, and of another address space
        ("cgroup", "kn", "kernfs_node"),
        ("inet_hashinfo", "ehash", "inet_ehash_bucket"),
        ("inet_hashinfo", "ehash_mask", None),
    ],
)
@pytest.mark.parametrize("kernel", BLOBS)
def test_a_pointer_names_what_it_points_to(
    kernel: str, name: str, path: str, pointee: str | None
) -> None:
    found = member(kernel, name, path)
    assert found is not None
    assert found.pointee == pointee


@pytest.mark.parametrize("kernel", BLOBS)
def test_what_is_not_there_is_none(kernel: str) -> None:
    btf = Btf(str(BLOBS[kernel]))
    assert btf.find("no_such_struct") is None
    assert btf.find("tcp_sock", KIND_TYPEDEF) is None
    assert btf.member("no_such_struct", "a") is None
    assert btf.member("tcp_sock", "no_such_member") is None
    assert btf.member("tcp_sock", "rcv_nxt.deeper") is None
    assert btf.member("sock", "sk_socket.file") is None  # behind a pointer
    assert btf.enum("no_such_enum") == {}


@pytest.mark.parametrize("kernel", BLOBS)
def test_an_enum_is_read_whole(kernel: str) -> None:
    btf = Btf(str(BLOBS[kernel]))
    helpers = btf.enum("bpf_func_id")
    assert helpers["BPF_FUNC_map_lookup_elem"] == 1
    assert helpers["BPF_FUNC_ktime_get_ns"] == 5
    assert helpers["BPF_FUNC_skc_to_tcp_sock"] == 137
    assert sorted(helpers.values())[:150] == list(range(150))


def test_reset_reasons_are_there_since_they_are() -> None:
    """The enum sk_rst_reason and the argument of tcp_send_reset came together, in v6.10."""
    reasons = {name: Btf(str(path)).enum("sk_rst_reason") for name, path in BLOBS.items()}
    assert {name.split("-")[0] for name, found in reasons.items() if not found} == {"5.10", "6.1"}
    for found in filter(None, reasons.values()):
        assert found["SK_RST_REASON_NOT_SPECIFIED"] == 0
        assert "SK_RST_REASON_TCP_ABORT_ON_CLOSE" in found


@pytest.mark.parametrize("kernel", BLOBS)
def test_every_tracepoint_can_be_found(kernel: str) -> None:
    btf = Btf(str(BLOBS[kernel]))
    assert all(btf.tracepoint(name) for name in TRACEPOINTS)


@pytest.mark.parametrize("kernel", BLOBS)
def test_a_reset_has_a_reason_where_the_enum_is(kernel: str) -> None:
    """on_send_reset reads a third argument by that rule: (data, sk, skb, reason)."""
    whole = Whole(BLOBS[kernel].read_bytes())
    typedef = whole.find("btf_trace_tcp_send_reset", TYPEDEF)
    assert typedef is not None
    pointer = whole.types[whole.types[typedef].size]
    prototype = whole.types[pointer.size]
    assert (pointer.kind, prototype.kind) == (PTR, FUNC_PROTO)
    has_reason = whole.find("sk_rst_reason", KIND_ENUM) is not None
    assert len(prototype.entries) == (4 if has_reason else 3)


def test_a_function_is_found_by_its_kind() -> None:
    """Linux commit c5dbb89fc2ac ("bpf: Expose bpf_get_socket_cookie to tracing programs").

    In v5.12.
    """
    found = {
        name: Btf(str(path)).find("bpf_get_socket_ptr_cookie", KIND_FUNC) is not None
        for name, path in BLOBS.items()
    }
    assert {name for name, there in found.items() if not there} == {"5.10-amd64"}


def test_anonymous_members_are_looked_through(tmp_path: Path) -> None:
    btf = small_btf(
        tmp_path / "btf",
        ("int", INT, 0, 4, [32]),
        ("", STRUCT, 1, 4, ["inner", 1, 0]),
        ("", STRUCT, 1, 4, ["", 2, 32]),
        ("outer", STRUCT, 1, 12, ["", 3, 32]),
    )
    assert btf.member("outer", "inner") == Member(64, 0, 4, None)
    assert btf.member("outer", "other") is None


def test_a_bitfield_has_its_size_in_bits(tmp_path: Path) -> None:
    btf = small_btf(
        tmp_path / "btf",
        ("unsigned int", INT, 0, 4, [32]),
        ("s", STRUCT, 2, 8, ["a", 1, 3 << 24 | 37, "plain", 1, 0]),
        bitfields=True,
    )
    assert btf.member("s", "a") == Member(37, 3, 4, None)
    assert btf.member("s", "plain") == Member(0, 0, 4, None)


def test_types_that_refer_to_themselves_are_refused(tmp_path: Path) -> None:
    """No kernel has them, and no loop may be endless for it."""
    btf = small_btf(
        tmp_path / "btf",
        ("", CONST, 0, 1, []),
        ("s", STRUCT, 1, 4, ["a", 1, 0]),
        ("own", STRUCT, 1, 4, ["", 3, 0]),
    )
    with pytest.raises(BtfError, match="refers to itself"):
        btf.member("s", "a")
    with pytest.raises(BtfError, match="contains itself"):
        btf.member("own", "a")


def test_a_missing_file_is_named_with_its_errno(tmp_path: Path) -> None:
    with pytest.raises(BtfError, match=r"absent: No such file or directory \(errno 2\)"):
        Btf(str(tmp_path / "absent"))


@pytest.mark.parametrize("text", [b"", b"\x7fELF", b"not a BTF at all, but a text"])
def test_what_is_no_btf_is_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "btf"
    path.write_bytes(text)
    with pytest.raises(BtfError, match=str(path)):
        Btf(str(path))


@pytest.mark.parametrize("kind", ["prefix", "flips", "noise"])
def test_a_damaged_blob_never_crashes(tmp_path: Path, kind: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", SURVIVE, str(BLOBS["6.12-amd64"]), str(tmp_path / "btf"), kind],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    variants, good = map(int, result.stdout.split())
    assert variants > 50
    # A flipped byte may be in a name that nobody asks for; half a BTF is none.
    assert kind == "flips" or good == 0
