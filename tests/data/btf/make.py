# SPDX-License-Identifier: Apache-2.0
"""Cut a kernel's BTF down to the types the tracer asks for; run by hand, the results are kept.

Usage: make.py KERNEL OUT.btf, from the top of the repository with PYTHONPATH=. ; KERNEL is
/sys/kernel/btf/vmlinux, or the vmlinuz of any distribution's kernel package of any machine
(gzip, xz, zstd and lz4 payloads are unpacked with the programs of these names).

A whole BTF is 4 to 6 MB, a cut one about 15 kB. What stays: the members on the paths of
tracer/kernel/header.py and load_census.py, every structure in its own size, the typedefs of the
tracepoints with their prototypes, and two enums. A structure that is only pointed to keeps its
name and loses its members. The format is Documentation/bpf/btf.rst; the types are written from
scratch and then compared with the whole through tracer/kernel/btf.py.
"""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tracer.kernel.btf import Btf
from tracer.kernel.header import kernel_types
from tracer.kernel.hooks import HOOKS
from tracer.kernel.load_census import CENSUS_MEMBERS as MEMBERS
from tracer.kernel.load_census import PROGRAMS as ITERATORS

TRACEPOINTS: Final = (
    "inet_sock_set_state",
    "tcp_destroy_sock",
    "tcp_receive_reset",
    "tcp_send_reset",
)
OPTIONAL_TRACEPOINTS: Final = ("inet_sk_error_report", "signal_generate")
ENUMS: Final = ("sk_rst_reason", "bpf_func_id")
FUNCTIONS: Final = (
    "bpf_get_socket_ptr_cookie",
    *(function for hook in HOOKS for function in hook.programs),
    *(function for _name, _program, function in ITERATORS),
)

# Paths the tests ask for besides: a member through three structures.
ALSO: Final = {
    "tcp_sock": ("inet_conn.icsk_inet.sk.sk_shutdown", "inet_conn.icsk_inet.sk.sk_socket"),
}

HEADER: Final = struct.Struct("<HBBIIIII")
MAGIC: Final = 0xEB9F
WORDS: Final = struct.Struct("<III")
INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF = 1, 2, 3, 4, 5, 6, 7, 8
FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, ENUM64 = 12, 13, 14, 15, 16, 17, 19
SIZED: Final = (INT, ARRAY, STRUCT, UNION, ENUM, FWD, DATASEC, FLOAT, ENUM64)
COMPOSITES: Final = (STRUCT, UNION)
# Bytes behind a type: once, and for each of its `vlen` entries.
TAIL: Final = {INT: 4, ARRAY: 12, VAR: 4, DECL_TAG: 4}
ENTRY: Final = {STRUCT: 12, UNION: 12, ENUM: 8, FUNC_PROTO: 8, DATASEC: 12, ENUM64: 12}

PAYLOADS: Final = {
    b"\x28\xb5\x2f\xfd": ["zstd", "-dcq"],
    b"\xfd7zXZ\0": ["xz", "-dcq", "--single-stream"],
    b"\x1f\x8b\x08": ["gzip", "-dcq"],
    b"\x02!L\x18": ["lz4", "-dcq"],
}
KERNEL_BYTES_MIN: Final = 8 << 20  # shorter "payloads" are bytes that look like one
BTF_BYTES_MIN: Final = 1 << 20  # a whole kernel's; a module's is far smaller


@dataclass(slots=True)
class Type:
    """One struct btf_type with the words behind it; `entries` are one tuple each."""

    name: str
    info: int
    size: int  # or the type referred to
    tail: tuple[int, ...] = ()
    entries: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def kind(self) -> int:
        """BTF_KIND_*."""
        return self.info >> 24 & 0x1F

    def refers_by_size(self) -> bool:
        """Whether `size` is a type's number: so for all that have no size of their own."""
        return self.kind not in SIZED


class Whole:
    """A parsed BTF: `types[0]` is void."""

    def __init__(self, blob: bytes) -> None:
        _, _, _, length, type_at, type_bytes, text_at, text_bytes = HEADER.unpack_from(blob)
        self._text = blob[length + text_at : length + text_at + text_bytes]
        self.types = [Type("", 0, 0)]
        data = blob[length + type_at : length + type_at + type_bytes]
        at = 0
        while at < len(data):
            at = self._parse(data, at)

    def name(self, offset: int) -> str:
        """Return the string at `offset`."""
        return self._text[offset : self._text.index(b"\0", offset)].decode()

    def find(self, name: str, kind: int) -> int | None:
        """Return the first type of this name and kind, as libbpf does."""
        for number, one in enumerate(self.types):
            if one.name == name and one.kind == kind:
                return number
        return None

    def strip(self, number: int) -> int:
        """Go through typedefs, qualifiers and arrays, as Btf.member does."""
        one = self.types[number]
        while one.kind == ARRAY or (one.refers_by_size() and one.kind not in (PTR, FUNC)):
            number = one.tail[0] if one.kind == ARRAY else one.size
            one = self.types[number]
        return number

    def _parse(self, data: bytes, at: int) -> int:
        name, info, size = WORDS.unpack_from(data, at)
        one = Type(self.name(name), info, size)
        at += WORDS.size
        count: int = info & 0xFFFF
        width = ENTRY.get(one.kind, 0)
        one.tail = struct.unpack_from(f"<{TAIL.get(one.kind, 0) // 4}I", data, at)
        at += TAIL.get(one.kind, 0)
        if width:
            words = struct.Struct(f"<{width // 4}I")
            one.entries = list(words.iter_unpack(data[at : at + count * width]))
        self.types.append(one)
        return at + count * width


class Strings:
    """A string section; each string is in it once."""

    def __init__(self) -> None:
        self.data = bytearray(b"\0")
        self._offsets = {"": 0}

    def intern(self, name: str) -> int:
        """Return where the string is."""
        if name not in self._offsets:
            self._offsets[name] = len(self.data)
            self.data += name.encode() + b"\0"
        return self._offsets[name]


class Cut:
    """What stays of a Whole: `keep` holds, for each type, the entries that stay."""

    def __init__(self, whole: Whole) -> None:
        self._whole = whole
        self.keep: dict[int, set[int]] = defaultdict(set)
        for name, members in MEMBERS.items():
            number = self._named(name, STRUCT)
            assert number is not None, name
            for path in (*members.values(), *ALSO.get(name, ())):
                self._walk(number, path.rstrip("?").split("."))
        for tracepoint in (*TRACEPOINTS, *OPTIONAL_TRACEPOINTS):
            self._named(f"btf_trace_{tracepoint}", TYPEDEF)
        for function in FUNCTIONS:
            self._named(function, FUNC)
        for enum in ENUMS:
            number = self._named(enum, ENUM)
            if number is not None:
                self.keep[number] |= set(range(len(whole.types[number].entries)))

    def blob(self) -> bytes:
        """Return the kept types as a BTF of its own, in their old order."""
        order = sorted(self.keep)
        number = {0: 0} | {old: new for new, old in enumerate(order, 1)}
        text = Strings()
        types = b"".join(self._emit(old, number, text) for old in order)
        sizes = (0, len(types), len(types), len(text.data))
        return HEADER.pack(MAGIC, 1, 0, HEADER.size, *sizes) + types + text.data

    def _named(self, name: str, kind: int) -> int | None:
        number = self._whole.find(name, kind)
        if number is not None:
            self._take(number)
        return number

    # Keep a type and all it is made of, but no member of a structure.
    def _take(self, number: int) -> None:
        if not number or number in self.keep:
            return
        one = self._whole.types[number]
        self.keep[number] = set()
        if one.refers_by_size():
            self._take(one.size)
        if one.kind == ARRAY:
            self._take(one.tail[0])
            self._take(one.tail[1])
        if one.kind == FUNC_PROTO:
            self.keep[number] = set(range(len(one.entries)))
            for _name, parameter in one.entries:
                self._take(parameter)

    # Keep the members on a path from this structure on; False when there is none.
    def _walk(self, number: int, path: list[str]) -> bool:
        number = self._whole.strip(number)
        one = self._whole.types[number]
        if not path or one.kind not in COMPOSITES:
            return not path
        for index, (name, member, _offset) in enumerate(one.entries):
            named = self._whole.name(name)
            rest = path[1:] if named else path
            if named in ("", path[0]) and self._walk(member, rest):
                self._take(number)
                self._take(member)
                self.keep[number].add(index)
                return True
        return False

    def _emit(self, old: int, number: dict[int, int], text: Strings) -> bytes:
        one = self._whole.types[old]
        kept = [list(one.entries[index]) for index in sorted(self.keep[old])]
        for entry in kept:
            entry[0] = text.intern(self._whole.name(entry[0]))
            if one.kind != ENUM:
                entry[1] = number[entry[1]]
        info = one.info & ~0xFFFF | len(kept) if one.entries else one.info
        size = number[one.size] if one.refers_by_size() else one.size
        tail = one.tail
        if one.kind == ARRAY:
            tail = (number[tail[0]], number[tail[1]], tail[2])
        words = [text.intern(one.name), info, size, *tail, *(word for e in kept for word in e)]
        return struct.pack(f"<{len(words)}I", *words)


def whole_btf(kernel: bytes) -> bytes:
    """Return the BTF of a kernel image, or the bytes themselves when they are one."""
    if kernel[:2] == MAGIC.to_bytes(2, "little"):
        return kernel
    for image in (kernel, *unpacked(kernel)):
        for match in re.finditer(rb"\x9f\xeb\x01\x00", image):
            blob = image[match.start() : match.start() + HEADER.size]
            _, _, _, length, type_at, type_bytes, text_at, text_bytes = HEADER.unpack(blob)
            total = length + text_at + text_bytes
            if type_at == 0 and type_bytes <= text_at and BTF_BYTES_MIN < total < len(image):
                return image[match.start() : match.start() + total]
    sys.exit("no BTF in this image")


def unpacked(kernel: bytes) -> list[bytes]:
    """Return what is compressed within an image and is long enough to be a kernel."""
    found = []
    for magic, command in PAYLOADS.items():
        for match in re.finditer(re.escape(magic), kernel):
            # The payload is followed by other bytes, of which the program complains.
            result = subprocess.run(
                command, input=kernel[match.start() :], capture_output=True, check=False
            )
            if len(result.stdout) > KERNEL_BYTES_MIN:
                found.append(result.stdout)
                break
    return found


def check(whole: bytes, cut: Path) -> None:
    """Raise AssertionError unless both give the same answers to everything that is asked."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(whole)
        file.flush()
        one, other = Btf(file.name), Btf(str(cut))
    assert kernel_types(one, MEMBERS) == kernel_types(other, MEMBERS)
    for name, members in MEMBERS.items():
        for path in members.values():
            assert one.member(name, path.rstrip("?")) == other.member(name, path.rstrip("?"))
    assert [one.enum(name) for name in ENUMS] == [other.enum(name) for name in ENUMS]


def main() -> None:
    """Cut, write, compare."""
    kernel, out = Path(sys.argv[1]), Path(sys.argv[2])
    whole = whole_btf(kernel.read_bytes())
    out.write_bytes(Cut(Whole(whole)).blob())
    check(whole, out)
    print(f"{out}: {out.stat().st_size} of {len(whole)} bytes")


if __name__ == "__main__":
    main()
