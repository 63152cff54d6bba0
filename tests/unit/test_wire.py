# SPDX-License-Identifier: Apache-2.0
"""tracer/wire.py says what bpf/records.h says, byte for byte."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.unit import c_layout
from tracer import tcp, wire
from tracer.errors import FourwaveError, WireError
from tracer.kernel import source, strays

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADER = Path(__file__).parents[2] / "bpf" / "records.h"
STRUCTS = {
    "actor": wire.ACTOR_DTYPE,
    "tcp_counts": wire.COUNTS_DTYPE,
    "conn_record": wire.CLOSE_DTYPE,
    "counters": wire.COUNTERS_DTYPE,
    "stray_key": strays.KEY_DTYPE,
    "time_waits": wire.TIME_WAITS_DTYPE,
}
ENUMS: dict[str, Any] = {
    "RECORD_": tcp.RecordType,
    "CONN_": tcp.ConnFlag,
    "FILE_": tcp.FileRef,
    "ACTOR_": tcp.ActorFlag,
    "RST_": tcp.RstFlag,
    "ACK_": tcp.AckFlag,
    "STRAY_": tcp.Stray,
    "CHANGE_": tcp.TimeWaitChange,
}


def expressions() -> Iterator[tuple[str, int]]:
    """Yield every C expression and the number Python has for it."""
    for struct, dtype in STRUCTS.items():
        yield from c_layout.of_struct(struct, dtype)
    for prefix, members in ENUMS.items():
        yield from ((f"{prefix}{member.name}", int(member)) for member in members)
    yield "TW_NONE", tcp.TW_NONE
    yield "TW_NOT_LOOKED", tcp.TW_NOT_LOOKED
    yield "WIRE_VERSION", wire.WIRE_VERSION
    yield "COMM_LEN", wire.COMM_LEN


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Return what a C compiler has for the same expressions."""
    names = [name for name, _ in expressions()]
    return c_layout.compiled(names, [HEADER], tmp_path_factory.mktemp("wire"))


def test_the_source_maps_what_is_decoded() -> None:
    """Where bytes are only handed on, their sizes are those of the arrays."""
    assert wire.CLOSE_DTYPE.itemsize == source.RECORD_BYTES
    assert wire.RING_RECORD_DTYPE.itemsize == source.STRIDE
    assert wire.TIME_WAITS_DTYPE.itemsize == source.TIME_WAITS_BYTES
    changes = wire.TIME_WAITS_DTYPE["changes"]
    assert changes.shape == (len(tcp.TimeWaitChange),)
    assert (wire.TIME_WAITS_DTYPE.names or ())[0] == "changes"


def test_layout_is_the_compilers(compiled: dict[str, int]) -> None:
    """Every size, offset and enum value is the one C has."""
    assert dict(expressions()) == compiled


def test_every_field_and_member_of_the_header_is_here() -> None:
    """Nothing was added to records.h and forgotten here."""
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
    for struct, dtype in STRUCTS.items():
        found = re.search(rf"struct {struct} {{(.*?)\n}};", text, re.DOTALL)
        assert found is not None
        names = re.findall(r"(\w+)(?:\[\w+\])?;", found[1])
        assert list(dtype.names or ()) == names
    members = re.findall(r"\b((?:RECORD|CONN|FILE|ACTOR|RST|ACK|STRAY|CHANGE)_\w+) = ", text)
    assert {f"{p}{m.name}" for p, e in ENUMS.items() for m in e} == set(members)


def test_records_lie_at_a_fixed_stride() -> None:
    """The ring rounds to 8 bytes: a record must not leave a remainder."""
    assert wire.CLOSE_DTYPE.itemsize % 8 == 0
    assert wire.RING_RECORD_DTYPE.itemsize == wire.RING_HEADER_BYTES + wire.CLOSE_DTYPE.itemsize


def test_decode_is_a_view_of_what_was_encoded() -> None:
    records = np.zeros(5, wire.CLOSE_DTYPE)
    records["closed_ns"] = [3, 1, 4, 1, 5]
    data = wire.encode_closes(records)
    decoded = wire.decode_closes(data)
    assert decoded["closed_ns"].tolist() == [3, 1, 4, 1, 5]
    assert np.shares_memory(decoded, np.frombuffer(data, np.uint8))


def test_decode_of_nothing_is_empty() -> None:
    assert len(wire.decode_closes(b"")) == 0


def test_a_cut_record_is_an_error() -> None:
    data = wire.encode_closes(np.zeros(2, wire.CLOSE_DTYPE))
    with pytest.raises(WireError, match="not whole records"):
        wire.decode_closes(data[:-1])
    assert issubclass(WireError, FourwaveError)


def test_another_length_is_an_error() -> None:
    data = bytearray(wire.encode_closes(np.zeros(2, wire.CLOSE_DTYPE)))
    data[0:4] = (100).to_bytes(4, "little")
    with pytest.raises(WireError, match="holds 100 bytes"):
        wire.decode_closes(data)


def test_an_entry_still_being_written_is_an_error() -> None:
    data = bytearray(wire.encode_closes(np.zeros(1, wire.CLOSE_DTYPE)))
    data[3] |= 0x80
    with pytest.raises(WireError, match="still being written"):
        wire.decode_closes(data)


def test_discarded_entries_are_left_out() -> None:
    records = np.zeros(3, wire.CLOSE_DTYPE)
    records["closed_ns"] = [1, 2, 3]
    data = bytearray(wire.encode_closes(records))
    data[wire.RING_RECORD_DTYPE.itemsize + 3] |= 0x40
    assert wire.decode_closes(data)["closed_ns"].tolist() == [1, 3]


def test_all_of_a_record_is_written() -> None:
    """The room for it in the ring holds an older one: what is left out would be that one's."""
    parts = ("life.h", "evidence.h", "teardown.bpf.c")
    text = "".join((HEADER.parent / part).read_text() for part in parts)
    names = wire.CLOSE_DTYPE.names or ()
    assert [name for name in names if not re.search(rf"\b(to|record)->{name}\b", text)] == []
