# SPDX-License-Identifier: Apache-2.0
"""Recordings: what is written comes back, and what is damaged is read up to the damage."""

from __future__ import annotations

import errno
import json
import os
import stat
import struct
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from tracer import recording
from tracer.batch import Batch, BatchKind
from tracer.errors import RecordingError
from tracer.recording import RecordingSource, RecordingWriter

if TYPE_CHECKING:
    from pathlib import Path

HEADER: dict[str, Any] = {"hz": 250, "kernel_release": "6.1.0"}
BATCHES = [
    Batch(BatchKind.CLOCK, 1, b'{"realtime_minus_monotonic_ns":5}'),
    Batch(BatchKind.CLOSES, 2, bytes(range(256)) * 3),
    Batch(BatchKind.COUNTERS, 3, b'{"closes":1}'),
]


def write(path: Path, batches: list[Batch] = BATCHES) -> bytes:
    """Write a recording and return its bytes."""
    with RecordingWriter(str(path), HEADER) as writer:
        for batch in batches:
            writer.write(batch)
    return path.read_bytes()


def read(path: Path) -> tuple[list[Batch], recording.Damage | None]:
    """Return all whole batches, and the damage."""
    with RecordingSource(str(path)) as source:
        return list(source), source.damage


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a recording may be made."""
    return tmp_path / "a.rec"


def test_round_trip(path: Path) -> None:
    """Batches come back as they were written, and so does the header."""
    write(path)
    with RecordingSource(str(path)) as source:
        assert source.header == HEADER
        assert list(source) == BATCHES
        assert source.damage is None


def test_empty_batches_are_left_out(path: Path) -> None:
    """A tick without closes leaves no frame."""
    write(path, [Batch(BatchKind.CLOSES, 1, b"")])
    assert read(path) == ([], None)


def test_file_is_for_its_owner(path: Path) -> None:
    """A recording holds peers' addresses: nobody else may read it."""
    write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_existing_file_is_refused_without_force(path: Path) -> None:
    """Nothing is overwritten by accident; --force is named."""
    path.write_text("precious")
    with pytest.raises(RecordingError, match="--force"):
        RecordingWriter(str(path), HEADER)
    assert path.read_text() == "precious"
    RecordingWriter(str(path), HEADER, force=True).close()
    assert read(path) == ([], None)


def test_cut_anywhere_reads_what_is_whole(path: Path) -> None:
    """Whatever the length, whole batches are read, and the damage is told with its place."""
    whole = write(path)
    start = len(whole)
    for batch in BATCHES:
        start -= recording.FRAME.size + len(batch.data)
    start -= recording.FRAME.size  # the end mark
    for length in range(start, len(whole)):
        path.write_bytes(whole[:length])
        batches, damage = read(path)
        assert batches == BATCHES[: len(batches)]
        assert damage is not None
        assert damage.offset <= length


def test_what_follows_the_end_is_told(path: Path) -> None:
    """Of two recordings in one file the second is not read: that must not go unsaid."""
    path.write_bytes(write(path) * 2)
    batches, damage = read(path)
    assert batches == BATCHES
    assert damage is not None
    assert "follows the end mark" in damage.what


def test_every_flipped_byte_is_noticed(path: Path) -> None:
    """No single wrong byte passes: it is refused, or told after the whole batches before it."""
    whole = write(path)
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x5A]) + whole[at + 1 :])
        try:
            batches, damage = read(path)
        except RecordingError:
            continue
        assert damage is not None, at
        assert batches == BATCHES[: len(batches)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a fourwave recording"),
        (b"\x7fELF" + bytes(100), "not a fourwave recording"),
        (recording.PREFIX.pack(recording.MAGIC, 2, 2, zlib.crc32(b"{}")) + b"{}", "format 2"),
        (recording.PREFIX.pack(recording.MAGIC, 1, 1 << 31, 0), "impossible"),
        (recording.PREFIX.pack(recording.MAGIC, 1, 2, 0) + b"{}", "checksum"),
        (recording.PREFIX.pack(recording.MAGIC, 1, 2, zlib.crc32(b"[]")) + b"[]", "JSON object"),
        (recording.PREFIX.pack(recording.MAGIC, 1, 2, zlib.crc32(b"x}")) + b"x}", "not JSON"),
    ],
)
def test_what_is_no_recording_is_refused(path: Path, content: bytes, message: str) -> None:
    """Each with what is wrong, before anything is believed."""
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=message):
        RecordingSource(str(path))


def test_deeply_nested_header_is_refused(path: Path) -> None:
    """A header made to exhaust the parser is an error message, not a crash."""
    text = b"[" * 500_000
    path.write_bytes(recording.PREFIX.pack(recording.MAGIC, 1, len(text), zlib.crc32(text)) + text)
    with pytest.raises(RecordingError, match="not JSON"):
        RecordingSource(str(path))


def test_huge_length_allocates_nothing(path: Path) -> None:
    """A frame that claims more than any frame can hold ends the reading."""
    prefix = write(path, [])[: -recording.FRAME.size]
    path.write_bytes(prefix + struct.pack("<IIQI", 1, 0xFFFFFFFF, 0, 0))
    batches, damage = read(path)
    assert batches == []
    assert damage is not None
    assert "4294967295 bytes" in damage.what


def test_unknown_kind_is_told(path: Path) -> None:
    """A frame of a later version stops the reading with its number."""
    prefix = write(path, [])[: -recording.FRAME.size]
    head = recording.FRAME_CHECKED.pack(77, 0, 0)
    path.write_bytes(prefix + head + zlib.crc32(head).to_bytes(4, "little"))
    _, damage = read(path)
    assert damage is not None
    assert "kind 77" in damage.what


def test_missing_file_names_the_errno(tmp_path: Path) -> None:
    """What failed, and why."""
    with pytest.raises(RecordingError, match="ENOENT"):
        RecordingSource(str(tmp_path / "none"))


def test_full_disk_keeps_whole_batches(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk fills up within a batch, the file ends after the one before, and replays."""
    writer = RecordingWriter(str(path), HEADER)
    writer.write(BATCHES[0])
    real_write = os.write

    def fill_up(fd: int, data: bytes) -> int:
        if len(data) > 10:
            return real_write(fd, data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", fill_up)
    with pytest.raises(RecordingError, match=r"ENOSPC.*1 batches before"):
        writer.write(Batch(BatchKind.CLOSES, 2, b"x" * 15))
    monkeypatch.undo()
    writer.close()
    batches, damage = read(path)
    assert batches == BATCHES[:1]
    assert damage is not None
    assert "end mark" in damage.what


def test_header_is_plain_json(path: Path) -> None:
    """Any tool can read the context."""
    whole = write(path)
    length = recording.PREFIX.unpack_from(whole)[2]
    assert json.loads(whole[recording.PREFIX.size :][:length]) == HEADER
