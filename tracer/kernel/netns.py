# SPDX-License-Identifier: Apache-2.0
"""The network namespaces of this host: where they can be entered, and entering them.

A namespace lives as long as something refers to it. A process in it shows it in /proc/PID/ns/net;
a bind mount (`ip netns`, container runtimes) in the mountinfo of whoever sees the mount; an open
descriptor of it in /proc/PID/fd. One that only its own sockets keep alive is entered by one of
these sockets (SIOCGSKNS). What nothing visible refers to cannot be entered: a namespace kept
alive by orphans alone is such.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import stat
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, TypeVar

from tracer.kernel.mountinfo import read_mounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ("entered", "find", "in_thread", "name_of", "own")

_CLONE_NEWNET: Final = 0x40000000
_LINK: Final = re.compile(r"net:\[(\d+)\]")
_DESCRIPTOR: Final = re.compile(r"/proc/(\d+)/fd/(\d+)")
_NR_PIDFD_GETFD: Final = 438  # of every machine
_SIOCGSKNS: Final = 0x894C
_ANOTHER: Final = "another one by now"
_NETNS_DIRS: Final = ("/run/netns/", "/var/run/netns/")

_T = TypeVar("_T")


def own() -> int:
    """Return the inode number of the calling thread's namespace."""
    return os.stat("/proc/thread-self/ns/net").st_ino  # noqa: PTH116 - follows the link


def find(wanted: set[int] | None = None, *, thorough: bool = False) -> dict[int, str]:
    """Return a path to enter each namespace by, by inode number; this process's first.

    `wanted`: stop looking when these are found. `thorough`: look at threads in a namespace of
    their own, and at descriptors of all processes, which takes long on a host with many.
    """
    found = dict(_link("/proc/self/ns/net"))
    for places in (_mounts, _processes, *((_threads, _descriptors) if thorough else ())):
        for inum, path in places():
            found.setdefault(inum, path)
            if wanted is not None and wanted <= found.keys():
                return found
    return found


def name_of(path: str) -> str | None:
    """Return the name `ip netns` has for what is entered by this path."""
    for folder in _NETNS_DIRS:
        if path.startswith(folder):
            return path.removeprefix(folder)
    return None


@contextmanager
def entered(inum: int, path: str) -> Iterator[None]:
    """Move the calling thread into a namespace, and leave it there. Raises OSError.

    Only for a thread of in_thread(): it ends in whatever namespace it was in last.
    """
    if own() != inum:
        fd = _open(path, inum)
        try:
            if os.fstat(fd).st_ino != inum:
                raise FileNotFoundError(errno.ENOENT, _ANOTHER, path)
            if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET):
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code), path)
        finally:
            os.close(fd)
    yield


# What is there by now may be anything: a FIFO, a device. It is looked at before it is opened.
def _open(path: str, inum: int) -> int:
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        found, descriptor = os.fstat(place), _DESCRIPTOR.fullmatch(path)
        if descriptor and stat.S_ISSOCK(found.st_mode):
            return _of_socket(int(descriptor[1]), int(descriptor[2]))
        if found.st_ino != inum or not stat.S_ISREG(found.st_mode):
            raise FileNotFoundError(errno.ENOENT, _ANOTHER, path)
        return os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(place)


# The namespace of somebody's socket. pidfd_getfd(2): 5.6 and later.
def _of_socket(pid: int, number: int) -> int:
    theirs = _copy_fd(pid, number)
    try:
        if not stat.S_ISSOCK(os.fstat(theirs).st_mode):
            raise FileNotFoundError(errno.ENOENT, _ANOTHER, f"/proc/{pid}/fd/{number}")
        return fcntl.ioctl(theirs, _SIOCGSKNS)
    finally:
        os.close(theirs)


def _copy_fd(pid: int, number: int) -> int:
    pidfd = os.pidfd_open(pid)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        numbers = (_NR_PIDFD_GETFD, pidfd, number, 0)
        copy = int(libc.syscall(*map(ctypes.c_long, numbers)))
        if copy < 0:
            code = ctypes.get_errno()
            code = errno.ENOENT if code == errno.EBADF else code  # it has been closed
            raise OSError(code, os.strerror(code), f"/proc/{pid}/fd/{number}")
        return copy
    finally:
        os.close(pidfd)


def in_thread(work: Callable[[], _T]) -> _T:
    """Return what `work` returns, done in a thread of its own: it may change its namespace."""
    results: list[_T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - it is raised in the caller
            errors.append(error)

    thread = threading.Thread(target=run, name="netns", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _pids() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - names only


def _processes() -> Iterator[tuple[int, str]]:
    for pid in _pids():
        yield from _link(f"/proc/{pid}/ns/net")


def _threads() -> Iterator[tuple[int, str]]:
    for pid in _pids():
        for tid in _names(f"/proc/{pid}/task"):
            yield from _link(f"/proc/{pid}/task/{tid}/ns/net")


# One that was bind-mounted when it was opened, and is not any more, is called "/".
def _descriptors() -> Iterator[tuple[int, str]]:
    device = os.stat("/proc/self/ns/net").st_dev  # noqa: PTH116 - follows the link
    for pid in _pids():
        for fd in _names(f"/proc/{pid}/fd"):
            path = f"/proc/{pid}/fd/{fd}"
            yield from _link(path)
            with suppress(OSError):
                if os.readlink(path) == "/":  # noqa: PTH115 - half a million of them
                    found = os.stat(path)  # noqa: PTH116 - follows the link
                    if found.st_dev == device:
                        yield found.st_ino, path


def _link(path: str) -> Iterator[tuple[int, str]]:
    with suppress(OSError, ValueError):
        match = _LINK.fullmatch(os.readlink(path))  # noqa: PTH115 - half a million of them
        if match:
            yield int(match[1]), path


def _names(folder: str) -> list[str]:
    with suppress(OSError):
        return os.listdir(folder)  # noqa: PTH208 - names only
    return []


# Bind mounts of namespaces, as every mount namespace sees them.
def _mounts() -> Iterator[tuple[int, str]]:
    seen = {_mount_namespace("thread-self")}
    yield from _mounted("/proc/thread-self/mountinfo", "")
    for pid in _pids():
        mounts = _mount_namespace(pid)
        if mounts and mounts not in seen:
            seen.add(mounts)
            yield from _mounted(f"/proc/{pid}/mountinfo", f"/proc/{pid}/root")


def _mount_namespace(pid: str) -> str:
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/mnt")  # noqa: PTH115 - one per process
    return ""


def _mounted(mountinfo: str, root: str) -> Iterator[tuple[int, str]]:
    with suppress(OSError):
        for mount in read_mounts(mountinfo):
            match = _LINK.fullmatch(os.fsdecode(mount.root))
            if match:
                yield int(match[1]), root + os.fsdecode(mount.point)
