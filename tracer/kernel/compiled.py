# SPDX-License-Identifier: Apache-2.0
"""What BCC made of a text, kept for the next start: compiling takes most of one.

A file per text in a folder that root alone can reach. It holds the instructions of every
function, with the number of a map where a descriptor was, and what it takes to create the maps
again. It is used only for the very text, flags and compiler it was made of, which BTF and the
sources are part of. Whatever is wrong with it, or with the folder, means compiling as ever.

FOURWAVE_CACHE=/FOLDER names another folder; anything else but a path, like ``off``: none.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import struct
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tracer.kernel import bpf
from tracer.kernel.instructions import map_loads

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ("FOLDER", "SWITCH", "Module", "Restored", "fingerprint", "keep", "restore")

SWITCH = "FOURWAVE_CACHE"
FOLDER = "/var/cache/fourwave"
OWNER = 0
_FORMAT = 1
_FILE_MAX_BYTES = 1 << 20  # twenty times what there is
_FUNCTION = re.compile(r"^int (on_\w+)\(", re.MULTILINE)


class Table(Protocol):
    """A map that exists."""

    @property
    def map_fd(self) -> int:
        """Return its descriptor."""


class Module(Protocol):
    """A compiled text: BCC's own, or one restored."""

    def __getitem__(self, name: str) -> Table:
        """Return the map of this name."""

    def dump_func(self, func_name: bytes) -> bytes:
        """Return the instructions of a function."""


class Map(NamedTuple):
    """A map of a text restored."""

    map_fd: int


class Restored:
    """A text compiled at an earlier start."""

    def __init__(self, kept: dict[str, Any]) -> None:
        """Create the maps. Raises bpf.LoadError; what was created is closed then."""
        self.bcc_version = str(kept["bcc_version"])
        self._functions: dict[str, str] = kept["functions"]
        self._numbers: dict[str, int] = kept["names"]
        self._fds: list[int] = []
        try:
            for fields in kept["maps"]:
                self._fds.append(bpf.create_map(*fields))
        except OSError:
            for fd in self._fds:
                os.close(fd)
            raise

    def __getitem__(self, name: str) -> Map:
        """Return the map of this name."""
        return Map(self._fds[self._numbers[name]])

    def dump_func(self, func_name: bytes) -> bytes:
        """Return the instructions of a function, with the maps' descriptors of this process."""
        code = bytearray.fromhex(self._functions[func_name.decode()])
        for at in map_loads(code):
            struct.pack_into("=i", code, at, self._fds[struct.unpack_from("=i", code, at)[0]])
        return bytes(code)


def fingerprint(text: str, cflags: Sequence[str], compiler: str) -> str:
    """Return what tells apart all that the instructions depend on."""
    parts = (str(_FORMAT), platform.machine(), compiler, *cflags, text)
    return hashlib.blake2b("\0".join(parts).encode()).hexdigest()


def restore(name: str, key: str) -> Restored | None:
    """Return what was kept under this name, None when that is not exactly what `key` names."""
    try:
        with _folder() as folder:
            content = _read(folder, name)
        digest, _, body = content.partition(b"\n")
        if hashlib.blake2b(body).hexdigest().encode() != digest:
            return None
        kept = json.loads(body)
        if kept["key"] != key:
            return None
        return Restored(kept)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(
    name: str, key: str, module: Module, text: str, maps: Sequence[str], bcc_version: str
) -> None:
    """Keep a compiled text, as far as there is a place for it.

    `maps`: names of those that will be asked for.
    """
    with suppress(OSError, ValueError), _folder(make=True) as folder:
        kept = {"key": key, "bcc_version": bcc_version, **_taken_apart(module, text, maps)}
        body = json.dumps(kept).encode()
        _write(folder, name, hashlib.blake2b(body).hexdigest().encode() + b"\n" + body)


# Raises ValueError for instructions that hold more than numbers and maps.
def _taken_apart(module: Module, text: str, names: Sequence[str]) -> dict[str, Any]:
    fds = [module[name].map_fd for name in names]
    functions = {}
    for function in _FUNCTION.findall(text):
        try:
            code = bytearray(module.dump_func(function.encode()))
        except Exception:  # noqa: BLE001, S112 - bare, as BCC does: not of this kernel's text
            continue
        for at in map_loads(code):
            fd = struct.unpack_from("=i", code, at)[0]
            if fd not in fds:
                fds.append(fd)
            struct.pack_into("=i", code, at, fds.index(fd))
        functions[function] = code.hex()
    return {
        "maps": [bpf.describe_map(fd) for fd in fds],
        "names": {name: number for number, name in enumerate(names)},
        "functions": functions,
    }


@contextmanager
def _folder(*, make: bool = False) -> Iterator[int]:
    path = Path(os.environ.get(SWITCH) or FOLDER)
    if not path.is_absolute() or os.geteuid() != OWNER:
        raise OSError(errno.EPERM, "no cache is wanted, or not by this user")
    if make:
        path.mkdir(mode=0o700, exist_ok=True)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _check(fd)
        yield fd
    finally:
        os.close(fd)


# Only what root made and nobody else can reach is believed.
def _check(fd: int) -> None:
    found = os.fstat(fd)
    if found.st_uid != OWNER or found.st_mode & 0o077:
        raise PermissionError(errno.EPERM, "not root's alone")


def _read(folder: int, name: str) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    with os.fdopen(fd, "rb") as file:
        _check(fd)
        return file.read(_FILE_MAX_BYTES)


# Two that write at once may spoil the file; its digest tells.
def _write(folder: int, name: str, content: bytes) -> None:
    fresh = f"{name}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = os.open(fresh, flags, 0o600, dir_fd=folder)
    with os.fdopen(fd, "wb") as file:
        _check(fd)
        file.write(content)
    os.replace(fresh, name, src_dir_fd=folder, dst_dir_fd=folder)
