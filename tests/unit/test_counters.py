# SPDX-License-Identifier: Apache-2.0
"""Totals over all CPUs by the names of struct counters, and the kernel's figures of programs."""

from __future__ import annotations

import os
import re
import struct
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tracer.kernel import counters
from tracer.kernel.counters import Counters, program_figures
from tracer.kernel.cpu_slots import CpuSlots

if TYPE_CHECKING:
    from collections.abc import Iterator

RECORDS_H: Final = Path(__file__).parents[2] / "bpf" / "records.h"
SLOT: Final = struct.Struct("16Q")

# As a 6.12 kernel gives it.
FDINFO: Final = """\
pos:\t0
flags:\t02000000
mnt_id:\t15
ino:\t2071
prog_type:\t26
prog_jited:\t1
prog_tag:\t5e9a1a2f9d6f0a9d
memlock:\t8192
prog_id:\t71
run_time_ns:\t129342
run_cnt:\t1234
recursion_misses:\t{misses}
verified_insns:\t812
"""


@pytest.fixture
def fdinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the folder that is read in place of /proc/self/fdinfo."""
    folder = tmp_path / "proc/self/fdinfo"
    folder.mkdir(parents=True)
    monkeypatch.setattr(counters, "Path", lambda path: tmp_path / path.lstrip("/"))
    (folder / "11").write_text(FDINFO.format(misses=5))
    (folder / "12").write_text(FDINFO.format(misses=0))
    return folder


@pytest.fixture
def fd() -> Iterator[int]:
    """Give an array of 64 slots, of which CPU 0, 1 and 63 have counted."""
    made = os.memfd_create("counts")
    slots = [SLOT.pack(*[0] * 16)] * 64
    slots[0] = SLOT.pack(*range(1, 17))
    slots[1] = SLOT.pack(*[10] * 16)
    slots[63] = SLOT.pack(1 << 40, *[0] * 15)
    os.write(made, b"".join(slots))
    yield made
    os.close(made)


def totals(fd: int, slots: int, programs: dict[str, int]) -> dict[str, Any]:
    """Return what is read once."""
    with closing(Counters(fd, slots, programs)) as counted:
        return counted.read()


def figures(path: Path) -> dict[str, int]:
    """Return what is read of one program."""
    with path.open("rb", buffering=0) as info:
        return program_figures(info)


def test_names_are_those_of_the_struct() -> None:
    """In its order, and the slot in its size."""
    body = re.search(r"struct counters \{(.*?)\n\};", RECORDS_H.read_text(), re.DOTALL)
    assert body is not None
    fields = re.findall(r"fw_u64 (\w+)(?:\[(\d+)\])?;", body[1])
    words = [name for name, count in fields for _ in range(int(count or 1))]
    assert words[: len(counters._NAMES)] == list(counters._NAMES)
    assert set(words[len(counters._NAMES) :]) == {"last_closed", "last_reset"}
    assert sum(int(count or 1) for _, count in fields) * 8 == counters._SLOT_BYTES


@pytest.mark.usefixtures("fdinfo")
def test_totals_are_sums_over_all_slots(fd: int) -> None:
    read = totals(fd, 64, {"set_state": 12})
    assert read["emitted"] == 1 + 2 + 10 + 10 + (1 << 40)
    rest = counters._NAMES[2:]
    assert {name: read[name] for name in rest} == {name: 13 + n for n, name in enumerate(rest)}
    assert read["closes"] == sum(read[name] for name in counters._CLOSES)


@pytest.mark.usefixtures("fdinfo")
def test_later_counts_are_seen_without_a_call(fd: int) -> None:
    total = Counters(fd, 64, {"set_state": 12})
    before = total.read()["emitted"]
    os.pwrite(fd, struct.pack("Q", 500), 5 * SLOT.size + 8)
    assert total.read()["emitted"] == before + 500
    total.close()


@pytest.mark.usefixtures("fdinfo")
def test_what_moved_since_it_was_read(fd: int) -> None:
    """Also where the sum stays as it was: a counter may not be passed over."""
    with closing(Counters(fd, 64, {"set_state": 12})) as total:
        assert total.moved()
        total.read()
        assert not total.moved()
        os.pwrite(fd, struct.pack("Q", 2), 0)
        assert total.moved()


@pytest.mark.usefixtures("fdinfo")
def test_slots_beyond_the_last_cpu_are_not_read(fd: int) -> None:
    assert totals(fd, 1, {"set_state": 12})["ring_full"] == 3


def test_the_first_words_of_a_slot_alone(fd: int) -> None:
    """Behind its totals a slot holds what is no number of anything."""
    with closing(CpuSlots(fd, 64, SLOT.size)) as slots:
        assert slots.totals(2) == [1 + 10 + (1 << 40), 2 + 10]


@pytest.mark.usefixtures("fdinfo")
@pytest.mark.parametrize(("program", "taken_over", "missed"), [(11, 3, 2), (11, 9, 0), (12, 3, 0)])
def test_missed_is_what_the_twin_did_not_take_over(
    fd: int, program: int, taken_over: int, missed: int
) -> None:
    at = counters._NAMES.index("taken_over") * 8
    os.pwrite(fd, struct.pack("Q", taken_over), at)
    os.pwrite(fd, struct.pack("Q", 0), SLOT.size + at)
    read = totals(fd, 64, {"set_state": program})
    assert read["interrupted"] == (5 if program == 11 else 0)
    assert read["missed"] == missed


@pytest.mark.usefixtures("fdinfo")
def test_every_program_has_its_figures(fd: int) -> None:
    programs = totals(fd, 64, {"set_state": 11, "send_reset": 12})["programs"]
    assert programs["set_state"] == {
        "run_time_ns": 129342,
        "run_cnt": 1234,
        "recursion_misses": 5,
    }
    assert programs["send_reset"]["recursion_misses"] == 0


def test_a_kernel_without_misses_gives_none(fdinfo: Path, fd: int) -> None:
    """5.10 has neither the guard nor its counter."""
    text = FDINFO.format(misses=0).replace("recursion_misses:\t0\n", "")
    (fdinfo / "13").write_text(text)
    assert figures(fdinfo / "13") == {"run_time_ns": 129342, "run_cnt": 1234}
    read = totals(fd, 64, {"set_state": 13})
    assert (read["interrupted"], read["missed"]) == (0, 0)


def test_the_real_fdinfo_of_no_program_has_no_figures(fd: int) -> None:
    assert figures(Path(f"/proc/self/fdinfo/{fd}")) == {}
