# SPDX-License-Identifier: Apache-2.0
"""Cgroups by id, asked of the running kernel: names of containers are somebody else's bytes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tracer.kernel import cgroups, mountinfo
from tracer.kernel.cgroups import CgroupPaths

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_SUCH_ID: Final = 1 << 40

MOUNTINFO: Final = b"""\
22 28 0:20 / /sys rw,nosuid shared:7 - sysfs sysfs rw
31 22 0:27 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
33 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
"""


@pytest.fixture
def mount() -> Path:
    """Give this machine's cgroup2 mount."""
    found = next(cgroups._cgroup2_mounts(), None)
    if found is None:
        pytest.skip("no cgroup2 is mounted here")
    return Path(os.fsdecode(found))


@pytest.fixture
def paths(mount: Path) -> Iterator[CgroupPaths]:
    """Give a way to ask, on a machine that answers."""
    made = CgroupPaths()
    if made.path(mount.stat().st_ino) is None:
        made.close()
        pytest.skip("the kernel does not open file handles here: it needs CAP_DAC_READ_SEARCH")
    yield made
    made.close()


def own(mount: Path) -> str:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    path = next(line.removeprefix("0::") for line in lines if line.startswith("0::"))
    if not (mount / path.lstrip("/")).is_dir():
        pytest.skip(f"the own cgroup {path} is not below the mount")
    return path


def open_fds() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def fake_mounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: bytes) -> None:
    file = tmp_path / "mountinfo"
    file.write_bytes(MOUNTINFO + line)
    monkeypatch.setattr(mountinfo, "Path", lambda _: file)


def test_the_own_cgroup_is_found_by_its_id(paths: CgroupPaths, mount: Path) -> None:
    """The id is the inode's number: kernfs has one for both."""
    path = own(mount)
    assert paths.path((mount / path.lstrip("/")).stat().st_ino) == path


def test_the_root_is_a_slash(paths: CgroupPaths, mount: Path) -> None:
    assert paths.path(mount.stat().st_ino) == "/"


@pytest.mark.parametrize("name", ["plain", "with blank", "ünï", os.fsdecode(b"bad\xff")])
def test_a_cgroup_comes_with_its_name_and_goes(paths: CgroupPaths, mount: Path, name: str) -> None:
    folder = mount / f"fourwave-test-{os.getpid()}-{name}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error.strerror}")
    try:
        number = folder.stat().st_ino
        shown = f"/{folder.name}".encode("utf-8", "surrogateescape")
        assert paths.path(number) == shown.decode("utf-8", "backslashreplace")
    finally:
        folder.rmdir()
    assert paths.path(number) is None


@pytest.mark.parametrize("number", [0, NO_SUCH_ID, (1 << 64) - 1])
def test_an_unknown_id_is_none(paths: CgroupPaths, number: int) -> None:
    assert paths.path(number) is None


def test_the_id_of_a_file_is_no_cgroup(paths: CgroupPaths, mount: Path) -> None:
    """The kernel opens it as a file without a place, which looks like the root."""
    assert paths.path((mount / "cgroup.procs").stat().st_ino) is None


def test_asking_leaves_no_descriptor_open(mount: Path) -> None:
    before = open_fds()
    made = CgroupPaths()
    for number in (mount.stat().st_ino, NO_SUCH_ID):
        made.path(number)
    made.close()
    made.close()
    assert open_fds() == before


def test_after_closing_nothing_is_known(mount: Path) -> None:
    made = CgroupPaths()
    made.close()
    assert made.path(mount.stat().st_ino) is None


def test_without_a_mount_nothing_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_mounts(monkeypatch, tmp_path, b"")
    made = CgroupPaths()
    assert made.path(1) is None
    made.close()


@pytest.mark.parametrize(
    ("shown", "meant"),
    [
        (b"/sys/fs/cgroup", b"/sys/fs/cgroup"),
        (rb"/mnt/with\040blank", b"/mnt/with blank"),
        (rb"/mnt/back\134slash", rb"/mnt/back\slash"),
        ("/mnt/ünï".encode(), "/mnt/ünï".encode()),
        (b"/mnt/bad\xff", b"/mnt/bad\xff"),
    ],
)
def test_the_mount_point_is_read_as_the_kernel_wrote_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shown: bytes, meant: bytes
) -> None:
    line = b"36 31 0:32 / " + shown + b" rw,relatime shared:9 - cgroup2 cgroup2 rw\n"
    fake_mounts(monkeypatch, tmp_path, line)
    assert list(cgroups._cgroup2_mounts()) == [meant]
