# SPDX-License-Identifier: Apache-2.0
"""BTF of a kernel, read through libbpf: which types there are and where their members lie.

Runs in the loader child under the distribution's Python, so it needs nothing but ctypes
and the libbpf that BCC itself depends on. Kernel differences are asked here, by the
presence of a type or a member, never by a version number.
"""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

__all__ = ("Btf", "BtfError", "Member")

# enum of BTF_KIND_*: include/uapi/linux/btf.h
KIND_PTR, KIND_ARRAY, KIND_STRUCT, KIND_UNION, KIND_ENUM = 2, 3, 4, 5, 6
KIND_TYPEDEF, KIND_VOLATILE, KIND_CONST, KIND_RESTRICT = 8, 9, 10, 11
KIND_FUNC, KIND_TYPE_TAG = 12, 18
_MODIFIERS = (KIND_TYPEDEF, KIND_VOLATILE, KIND_CONST, KIND_RESTRICT, KIND_TYPE_TAG)
_COMPOSITES = (KIND_STRUCT, KIND_UNION)
_DEPTH_MAX = 32  # of types within types; libbpf's MAX_RESOLVE_DEPTH


class BtfError(Exception):
    """This kernel's type information cannot be used; the message says why."""

    stage = "btf"


class BtfTooNewError(BtfError):
    """The kernel has types that this libbpf does not know."""

    stage = "btf_too_new"


class _Type(ctypes.Structure):
    _fields_ = [("name_off", ctypes.c_uint32), ("info", ctypes.c_uint32), ("size", ctypes.c_uint32)]


class _Triple(ctypes.Structure):
    # struct btf_member (name, type, offset), struct btf_array (type, index, nelems)
    # and struct btf_enum64 (name, low, high) are all three words.
    _fields_ = [("a", ctypes.c_uint32), ("b", ctypes.c_uint32), ("c", ctypes.c_uint32)]


class _Enum(ctypes.Structure):
    _fields_ = [("name_off", ctypes.c_uint32), ("value", ctypes.c_int32)]


_Entry = TypeVar("_Entry", _Triple, _Enum)


class Member(NamedTuple):
    """Where a member lies in its outermost structure, and what it is."""

    bit_offset: int
    bit_size: int  # 0: not a bitfield
    byte_size: int
    pointee: str | None  # the structure pointed to, "void" for anything else; None: no pointer


class Btf:
    """One kernel's BTF. Raises BtfError when libbpf or the blob is missing or broken."""

    def __init__(self, path: str = "/sys/kernel/btf/vmlinux") -> None:
        self._lib = _libbpf()
        self._found: dict[tuple[str, int], int] = {}
        self._btf = self._lib.btf__parse_raw(os.fsencode(path))
        error = self._lib.libbpf_get_error(self._btf)
        if abs(error) == errno.EINVAL and _is_btf(path):
            raise BtfTooNewError(f"{path}: libbpf does not know all of its types")
        if error or not self._btf:
            raise BtfError(f"{path}: {os.strerror(abs(error) or 22)} (errno {abs(error)})")

    def find(self, name: str, kind: int = KIND_STRUCT) -> int | None:
        """Return the id of the named type, None when this kernel does not have it."""
        # libbpf compares with every name there is: half a millisecond each.
        found = self._found.get((name, kind))
        if found is None:
            found = int(self._lib.btf__find_by_name_kind(self._btf, name.encode(), kind))
            self._found[name, kind] = found
        return found if found > 0 else None

    def tracepoint(self, name: str) -> int | None:
        """Return the type of a tracepoint's arguments, by which programs are attached to it."""
        return self.find(f"btf_trace_{name}", KIND_TYPEDEF)

    def member(self, struct: str, path: str) -> Member | None:
        """Resolve a dotted path such as ``__sk_common.skc_state``; None when a step is missing.

        Anonymous members are looked through, and a step into an array means its first element.
        """
        type_id, bit_offset, bit_size = self.find(struct), 0, 0
        for step in path.split("."):
            found = self._step(self._strip(type_id), step) if type_id else None
            if found is None:
                return None
            type_id, offset, bit_size = found
            bit_offset += offset
        assert type_id is not None
        stripped = self._strip(type_id)
        return Member(bit_offset, bit_size, self._size(type_id), self._pointee(stripped))

    def enum(self, name: str) -> dict[str, int]:
        """Return the enumerators of a named enum; empty when this kernel does not have it."""
        type_id = self.find(name, KIND_ENUM)
        if type_id is None:
            return {}
        entries = self._trailing(self._type(type_id), _Enum)
        return {self._name(entry.name_off): entry.value for entry in entries}

    def _type(self, type_id: int) -> _Type:
        pointer = self._lib.btf__type_by_id(self._btf, type_id)
        if not pointer:
            raise BtfError(f"no type {type_id}")
        return _Type.from_address(pointer)

    def _name(self, offset: int) -> str:
        raw: bytes | None = self._lib.btf__name_by_offset(self._btf, offset)
        if raw is None:
            raise BtfError(f"no name at {offset}")
        return raw.decode(errors="replace")

    def _kind(self, type_id: int) -> int:
        info: int = self._type(type_id).info
        return info >> 24 & 0x1F

    def _strip(self, type_id: int) -> int:
        # Through typedefs and qualifiers, and from an array to its element.
        for _ in range(_DEPTH_MAX):
            kind = self._kind(type_id)
            if kind in _MODIFIERS:
                type_id = self._type(type_id).size
            elif kind == KIND_ARRAY:
                type_id = self._array(type_id).a
            else:
                return type_id
        raise BtfError(f"type {type_id} refers to itself")

    def _array(self, type_id: int) -> _Triple:
        base = ctypes.addressof(self._type(type_id))
        return _Triple.from_address(base + ctypes.sizeof(_Type))

    def _size(self, type_id: int) -> int:
        return int(self._lib.btf__resolve_size(self._btf, type_id))

    def _pointee(self, type_id: int) -> str | None:
        if self._kind(type_id) != KIND_PTR:
            return None
        target = self._type(type_id).size
        if target == 0:
            return "void"
        stripped = self._strip(target)
        named = self._kind(stripped) in _COMPOSITES
        return (self._name(self._type(stripped).name_off) or "void") if named else "void"

    def _trailing(self, kind_type: _Type, entry: type[_Entry]) -> list[_Entry]:
        count = kind_type.info & 0xFFFF
        base = ctypes.addressof(kind_type) + ctypes.sizeof(_Type)
        return [entry.from_address(base + i * ctypes.sizeof(entry)) for i in range(count)]

    # The member's (type id, bit offset, bitfield size), looking through anonymous members.
    def _step(self, type_id: int, name: str, depth: int = 0) -> tuple[int, int, int] | None:
        if self._kind(type_id) not in _COMPOSITES:
            return None
        if depth > _DEPTH_MAX:
            raise BtfError(f"type {type_id} contains itself")
        kind_type = self._type(type_id)
        has_bitfields = bool(kind_type.info >> 31)
        for entry in self._trailing(kind_type, _Triple):
            offset = entry.c & 0xFFFFFF if has_bitfields else entry.c
            bits = entry.c >> 24 if has_bitfields else 0
            member_name = self._name(entry.a)
            if member_name == name:
                return entry.b, offset, bits
            if not member_name:
                inner = self._step(self._strip(entry.b), name, depth + 1)
                if inner is not None:
                    return inner[0], offset + inner[1], inner[2]
        return None


def _libbpf() -> ctypes.CDLL:
    for name in ("libbpf.so.1", "libbpf.so.0"):
        try:
            return _declare(ctypes.CDLL(name))
        except OSError:
            continue
    raise BtfError("libbpf.so.1 is missing; python3-bpfcc brings it")


# Of a blob that libbpf refuses, only its first two bytes are certain.
def _is_btf(path: str) -> bool:
    with suppress(OSError), Path(path).open("rb") as file:
        return file.read(2) in (b"\x9f\xeb", b"\xeb\x9f")
    return False


def _declare(lib: ctypes.CDLL) -> ctypes.CDLL:
    lib.btf__parse_raw.restype = ctypes.c_void_p
    lib.btf__parse_raw.argtypes = [ctypes.c_char_p]
    lib.libbpf_get_error.restype = ctypes.c_long
    lib.libbpf_get_error.argtypes = [ctypes.c_void_p]
    lib.btf__find_by_name_kind.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32]
    lib.btf__type_by_id.restype = ctypes.c_void_p
    lib.btf__type_by_id.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    lib.btf__name_by_offset.restype = ctypes.c_char_p
    lib.btf__name_by_offset.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    lib.btf__resolve_size.restype = ctypes.c_int64
    lib.btf__resolve_size.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    # Keep libbpf's own complaints off the user's terminal; errors come back as codes.
    lib.libbpf_set_print.argtypes = [ctypes.c_void_p]
    lib.libbpf_set_print(None)
    return lib
