# SPDX-License-Identifier: Apache-2.0
"""What BCC made is taken from the cache only as root left it there, for the very same text."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tracer.kernel import bpf, compiled

if TYPE_CHECKING:
    from collections.abc import Callable

TEXT: Final = "int on_first(u64 *ctx)\n{\n}\nint on_absent(void *ctx)\n{\n}\n"
NAME: Final = "text.c"
KEY: Final = compiled.fingerprint(TEXT, ["-DSLOTS=1"], "bcc 1")
MAP_FD: Final = 1
RING, COUNTS, HIDDEN = 31, 32, 33  # descriptors when it was compiled
SHAPES: Final = {
    RING: (27, 0, 0, 4096, 0, "ring"),
    COUNTS: (2, 4, 8, 1, 1024, "counts"),
    HIDDEN: (1, 8, 16, 100, 1, "hidden"),
}


def load_map(fd: int) -> bytes:
    return struct.pack("=BBhi", 0x18, MAP_FD << 4 | 1, 0, fd) + bytes(8)


def code(*fds: int) -> bytes:
    number = struct.pack("=BBhi", 0x18, 1, 0, RING) + bytes(8)  # a constant, no map
    return b"".join(map(load_map, fds)) + number


class Bcc:
    """What BCC has compiled: two maps by name, and one that only the code knows."""

    def __init__(self, instructions: bytes) -> None:
        self._instructions = instructions

    def __getitem__(self, name: str) -> compiled.Map:
        """Return a map."""
        return compiled.Map({"ring": RING, "counts": COUNTS}[name])

    def dump_func(self, func_name: bytes) -> bytes:
        """Return instructions; a function left out by #ifdef is unknown."""
        if func_name != b"on_first":
            raise Exception(f"Unknown program {func_name!r}")  # noqa: TRY002 - as BCC does
        return self._instructions


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the place of the cache; whoever runs the tests is root here."""
    path = tmp_path / "cache"
    monkeypatch.setenv(compiled.SWITCH, str(path))
    monkeypatch.setattr(compiled, "OWNER", os.geteuid())
    monkeypatch.setattr(bpf, "describe_map", SHAPES.__getitem__)
    return path


@pytest.fixture(autouse=True)
def created(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Give what maps were created; their descriptors count from 50."""
    shapes: list[tuple[Any, ...]] = []

    def create(*shape: Any) -> int:
        shapes.append(shape)
        return 49 + len(shapes)

    monkeypatch.setattr(bpf, "create_map", create)
    return shapes


def keep(instructions: bytes = code(RING, HIDDEN, COUNTS, RING)) -> None:
    compiled.keep(NAME, KEY, Bcc(instructions), TEXT, ("counts", "ring"), "0.31.0")


def test_what_was_kept_comes_back(folder: Path, created: list[tuple[Any, ...]]) -> None:
    """Maps as they were, and instructions that name the new ones; constants stay."""
    keep()
    restored = compiled.restore(NAME, KEY)
    assert restored is not None
    assert created == [SHAPES[COUNTS], SHAPES[RING], SHAPES[HIDDEN]]
    assert (restored["counts"].map_fd, restored["ring"].map_fd) == (50, 51)
    assert restored.dump_func(b"on_first") == b"".join(map(load_map, (51, 52, 50, 51))) + code()
    assert restored.bcc_version == "0.31.0"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in folder.iterdir()] == [NAME]
    assert (folder / NAME).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "other",
    [
        (TEXT + " ", ["-DSLOTS=1"], "bcc 1"),
        (TEXT, ["-DSLOTS=2"], "bcc 1"),
        (TEXT, ["-DSLOTS=1"], "bcc 2"),
        (TEXT, ["-DSLOTS=1", "bcc 1"], ""),
    ],
)
def test_a_change_of_anything_is_another_key(
    folder: Path, other: tuple[str, list[str], str]
) -> None:
    keep()
    assert folder.exists()
    assert compiled.restore(NAME, compiled.fingerprint(*other)) is None
    assert compiled.restore("other.c", KEY) is None


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def replace_by(kind: Callable[[Path], object]) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.unlink()
        kind(path)

    return replace


def link_away(path: Path) -> None:
    path.symlink_to(path.rename(path.parent.parent / "elsewhere"))


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        cut,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff" * (2 << 20)),
        replace_by(Path.mkdir),
        replace_by(lambda path: os.mkfifo(path, 0o600)),
        link_away,
        lambda path: path.chmod(0o644),
        lambda path: path.parent.chmod(0o755),
        lambda path: path.parent.chmod(0o770),
    ],
)
def test_what_is_not_as_it_was_left_is_not_used(
    folder: Path, damage: Callable[[Path], None], created: list[tuple[Any, ...]]
) -> None:
    keep()
    damage(folder / NAME)
    assert compiled.restore(NAME, KEY) is None
    assert created == []


def test_what_was_damaged_is_written_again(folder: Path) -> None:
    keep()
    cut(folder / NAME)
    keep()
    assert compiled.restore(NAME, KEY) is not None


def test_another_users_is_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep()
    monkeypatch.setattr(compiled, "OWNER", os.geteuid() + 1)
    assert compiled.restore(NAME, KEY) is None
    assert folder.exists()


def test_whoever_is_not_root_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "OWNER", os.geteuid() + 1)
    keep()
    assert not folder.exists()


def test_a_folder_open_to_others_is_not_written_to(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    keep()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("place", ["off", "0", "relative/path", "/proc/none", "/dev/null"])
def test_without_a_place_nothing_is_kept(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(compiled.SWITCH, place)
    keep()
    assert compiled.restore(NAME, KEY) is None
    assert not folder.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("source", [2, 3, 4])
def test_code_that_names_more_than_maps_is_not_kept(folder: Path, source: int) -> None:
    """A map's value, a variable or a function of this kernel: numbers that hold once."""
    keep(struct.pack("=BBhi", 0x18, source << 4, 0, 7) + bytes(8))
    assert compiled.restore(NAME, KEY) is None
    assert not (folder / NAME).exists()


def test_maps_that_cannot_be_created_leave_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep()
    ours: list[int] = []

    def create(*_shape: Any) -> int:
        if len(ours) == 2:
            raise bpf.LoadError(errno.ENOMEM, "create map")
        ours.append(os.open(os.devnull, os.O_RDONLY))
        return ours[-1]

    monkeypatch.setattr(bpf, "create_map", create)
    assert compiled.restore(NAME, KEY) is None
    assert folder.exists()
    for fd in ours:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_a_whole_file_of_another_format_is_not_used(folder: Path) -> None:
    keep()
    body = json.dumps({"key": "another"}).encode()
    digest = hashlib.blake2b(body).hexdigest().encode()
    (folder / NAME).write_bytes(digest + b"\n" + body)
    assert compiled.restore(NAME, KEY) is None
