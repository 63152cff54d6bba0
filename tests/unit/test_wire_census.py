# SPDX-License-Identifier: Apache-2.0
"""A census as bytes: laid out as C has it, the same after a journey, and no damage believed."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from tests.unit import c_layout
from tracer import census
from tracer.census import (
    CENSUS_VERSION,
    OWNERS,
    PORTS,
    SOCKETS,
    STATES,
    USERS,
    Census,
    NetnsFacts,
    ProcessFacts,
)
from tracer.errors import WireError
from tracer.kernel import walk
from tracer.kernel.census_bytes import encode_census
from tracer.wire_census import HEADER_MAX_BYTES, decode_census

if TYPE_CHECKING:
    from collections.abc import Iterator

BPF: Final = Path(__file__).parents[2] / "bpf"
STRUCTS: Final = {
    "socket_row": SOCKETS,
    "owner_row": walk.OWNER_ROW,
    "state_key": walk.STATE_KEY,
    "port_key": walk.PORT_KEY,
    "port_tally": walk.PORT_TALLY,
    "walk": walk.WALK,
    "wanted": walk.WANTED,
    "home": walk.HOME,
    "service_key": walk.SERVICE_KEY,
    "user_key": walk.USER_KEY,
    "user_tally": walk.USER_TALLY,
}
PREFIX: Final = struct.Struct("<II")


def expressions() -> Iterator[tuple[str, int]]:
    """Yield every C expression and the number Python has for it."""
    for name, dtype in STRUCTS.items():
        yield from c_layout.of_struct(name, dtype)
    for flag in census.SocketFlag:
        yield f"SOCKET_{flag.name}", int(flag)
    yield "REMAINING_STEP_S", census.REMAINING_STEP_S
    yield "REMAINING_STEPS", census.REMAINING_STEPS


def test_layout_is_the_compilers(tmp_path: Path) -> None:
    """Every size and offset is the one C has."""
    headers = [BPF / "records.h", BPF / "census.h"]
    expected = dict(expressions())
    assert c_layout.compiled(list(expected), headers, tmp_path) == expected


def test_every_field_of_the_header_is_here() -> None:
    """Nothing was added to census.h and forgotten here."""
    text = re.sub(r"/\*.*?\*/", "", (BPF / "census.h").read_text(), flags=re.DOTALL)
    for name, dtype in STRUCTS.items():
        found = re.search(rf"struct {name} {{(.*?)\n}};", text, re.DOTALL)
        assert found is not None
        assert list(dtype.names or ()) == re.findall(r"(\w+)(?:\[[\w /]+\])*;", found[1])


def test_arrays_have_no_hidden_bytes() -> None:
    """Padding has a name, so that equal rows are equal bytes."""
    for dtype in (STATES, SOCKETS, OWNERS, PORTS, USERS):
        fields = (dtype.fields or {}).values()
        assert dtype.itemsize == sum(kind.itemsize for kind, *_ in fields)


@pytest.fixture
def made() -> Census:
    """Give a census with something of everything."""
    states, ports = np.zeros(2, STATES), np.zeros(1, PORTS)
    sockets, owners = np.zeros(3, SOCKETS), np.zeros(1, OWNERS)
    states["count"], ports["rport"] = [1 << 40, 2], 443
    sockets["age_sent_ms"], owners["comm"] = [-1, 0, 5], b"four\xffwaves"
    facts = NetnsFacts(
        "/run/netns/blue",
        name="blue",
        port_range=(1024, 65000),
        reserved_ports=((8080, 8080), (9000, 9010)),
        tw_reuse=2,
        tcp_ext={"ListenDrops": 12},
        sockstat={"tw": 3},
    )
    process = ProcessFacts("nginx", exe="/usr/sbin/nginx", nofile_soft=1024, open_fds=7)
    return Census(
        mono_ns=5,
        took_ns=6,
        mechanism="iterator",
        states=states,
        ports=ports,
        sockets=sockets,
        owners=owners,
        namespaces={4026531840: facts},
        processes={12: process},
        cgroups={1: "/", 2: None},
        truncated={"ports": 4},
        reason=None,
    )


def test_a_census_comes_back(made: Census) -> None:
    again = decode_census(encode_census(made))
    for name in ("states", "ports", "sockets", "owners"):
        assert getattr(again, name).tobytes() == getattr(made, name).tobytes()
    for name in (
        *("mono_ns", "took_ns", "mechanism", "reason"),
        *("namespaces", "processes", "cgroups", "truncated"),
    ):
        assert getattr(again, name) == getattr(made, name)


def test_arrays_are_views(made: Census) -> None:
    """A million sockets are not copied."""
    data = encode_census(made)
    assert np.shares_memory(decode_census(data).sockets, np.frombuffer(data, np.uint8))


def test_every_cut_is_told(made: Census) -> None:
    data = encode_census(made)
    for end in range(len(data)):
        with pytest.raises(WireError):
            decode_census(data[:end])
    with pytest.raises(WireError, match="behind the arrays"):
        decode_census(data + b"\0")


def changed(data: bytes, key: str, value: Any) -> bytes:
    _, length = PREFIX.unpack_from(data)
    header = json.loads(data[PREFIX.size : PREFIX.size + length])
    if value is KeyError:
        del header[key]
    else:
        header[key] = value
    text = json.dumps(header).encode()
    return PREFIX.pack(CENSUS_VERSION, len(text)) + text + data[PREFIX.size + length :]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mono_ns", -1),
        ("mono_ns", True),
        ("took_ns", 1 << 64),
        ("mechanism", 7),
        ("mechanism", "x" * 5000),
        ("arrays", []),
        ("arrays", {"states": [24, 1]}),
        ("arrays", {"states": [8, 1], "ports": [108, 0], "sockets": [144, 0], "owners": [40, 0]}),
        ("arrays", {"states": [24, 1 << 50], "ports": [], "sockets": [], "owners": []}),
        ("namespaces", {"x": {}}),
        ("namespaces", {"1": {"entered_by": "/"}}),
        ("processes", {"1": []}),
        ("cgroups", {"1": 2}),
        ("truncated", {"ports": -1}),
        ("truncated", None),
        ("owners", KeyError),
        ("reason", KeyError),
    ],
)
def test_a_senseless_header_is_told(made: Census, key: str, value: Any) -> None:
    data = encode_census(made)
    if key == "owners":
        key, value = "arrays", {"states": [24, 2]}
    with pytest.raises(WireError):
        decode_census(changed(data, key, value))


def test_another_version_is_told(made: Census) -> None:
    data = encode_census(made)
    with pytest.raises(WireError, match=f"version {CENSUS_VERSION + 1}"):
        decode_census(PREFIX.pack(CENSUS_VERSION + 1, 0) + data)
    with pytest.raises(WireError, match="not all there"):
        decode_census(
            PREFIX.pack(CENSUS_VERSION, HEADER_MAX_BYTES + 1) + bytes(HEADER_MAX_BYTES + 2)
        )


@given(some.binary(max_size=200))
def test_any_bytes_are_a_census_or_an_error(junk: bytes) -> None:
    for data in (junk, PREFIX.pack(CENSUS_VERSION, len(junk)) + junk):
        with pytest.raises(WireError):
            decode_census(data)
