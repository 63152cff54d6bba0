# SPDX-License-Identifier: Apache-2.0
"""A network namespace of our own, and interfaces in it, with system calls alone."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
from pathlib import Path
from typing import Final

CLONE_NEWNET: Final = 0x40000000
SIOCGIFFLAGS: Final = 0x8913
SIOCSIFFLAGS: Final = 0x8914
SIOCSIFADDR: Final = 0x8916
SIOCSIFNETMASK: Final = 0x891C
IFF_UP: Final = 0x1
IFREQ_BYTES: Final = 40


def enter_new() -> bool:
    """Move this process into a new network namespace; False when that is not permitted."""
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.unshare(CLONE_NEWNET)) == 0


def inum() -> int:
    """Return the inum of this process's network namespace."""
    return Path("/proc/self/ns/net").stat().st_ino


def bring_up(interface: str) -> None:
    """Set IFF_UP. Raises OSError."""
    with _control_socket() as control:
        request = _ifreq(interface, b"")
        flags = struct.unpack_from("<H", fcntl.ioctl(control, SIOCGIFFLAGS, request), 16)[0]
        fcntl.ioctl(control, SIOCSIFFLAGS, _ifreq(interface, struct.pack("<H", flags | IFF_UP)))


def set_address(interface: str, address: str, netmask: str) -> None:
    """Give the interface one IPv4 address. Raises OSError."""
    with _control_socket() as control:
        for command, value in ((SIOCSIFADDR, address), (SIOCSIFNETMASK, netmask)):
            fcntl.ioctl(control, command, _ifreq(interface, _sockaddr_in(value)))


def _control_socket() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def _ifreq(interface: str, value: bytes) -> bytes:
    return (interface.encode().ljust(16, b"\0") + value).ljust(IFREQ_BYTES, b"\0")


def _sockaddr_in(address: str) -> bytes:
    return struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))
