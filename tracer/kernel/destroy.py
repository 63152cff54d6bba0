# SPDX-License-Identifier: Apache-2.0
"""End sockets from outside, as `ss -K` does: SOCK_DESTROY of sock_diag.

The process gets ECONNABORTED, the peer a RST. A socket is named by addresses, ports and cookie
together: one that took the same ports meanwhile is not touched.

pyroute2 has the request but cannot read its answer (its diagnostic socket takes every
answer of type NLMSG_ERROR for a socket), so the one message is written here.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING, Final

from tracer.kernel import netns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracer.census import NetnsFacts, Rows

__all__ = ("destroy", "explain")

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DESTROY: Final = 21
_REQUEST_ACK: Final = 1 | 4
_NLMSG_ERROR: Final = 2
_HEADER: Final = struct.Struct("=IHHII")  # struct nlmsghdr
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_ANSWER_S: Final = 5.0


def destroy(sockets: Rows, namespaces: Mapping[int, NetnsFacts]) -> list[int]:
    """End each of `sockets` (SOCKETS); return an errno for each, 0 where it was ended.

    `namespaces` are those of the same census. ENOENT: it is gone, or is another one by now.
    """
    return netns.in_thread(lambda: [_destroy(row, namespaces) for row in sockets])


def explain(code: int) -> str:
    """Return what an errno of destroy() means and what to do about it."""
    return _MEANINGS.get(code) or f"the kernel refused: {errno.errorcode.get(code, code)}"


_MEANINGS: Final = {
    0: "ended",
    errno.ENOENT: "it is gone by now",
    errno.EPERM: "not permitted: ending sockets of others takes CAP_NET_ADMIN (run it as root)",
    errno.EOPNOTSUPP: "this kernel cannot end sockets: it was built without "
    "CONFIG_INET_DIAG_DESTROY; end the process instead",
}


def _destroy(row: Rows, namespaces: Mapping[int, NetnsFacts]) -> int:
    inum = int(row["netns"])
    try:
        with (
            netns.entered(inum, namespaces[inum].entered_by),
            socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG) as channel,
        ):
            channel.settimeout(_ANSWER_S)
            channel.sendto(_request(row), (0, 0))
            return _answer(channel.recv(4096))
    except OSError as error:
        return error.errno or errno.EIO
    except KeyError:
        return errno.ENOENT


# struct inet_diag_req_v2 behind its header.
def _request(row: Rows) -> bytes:
    addresses = [_address(row[name].tobytes(), int(row["family"])) for name in ("laddr", "raddr")]
    family, every_state = _FAMILIES[int(row["family"])], (1 << 13) - 1
    body = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, every_state)
    body += struct.pack(">HH", int(row["lport"]), int(row["rport"]))
    body += b"".join(addresses) + struct.pack("=IQ", 0, int(row["cookie"]))
    length = _HEADER.size + len(body)
    return _HEADER.pack(length, _SOCK_DESTROY, _REQUEST_ACK, 1, 0) + body


# IPv4 takes the first four of sixteen bytes there; a mapped address is found as IPv4.
def _address(address: bytes, family: int) -> bytes:
    return address[12:] + bytes(12) if family == 4 else address


def _answer(message: bytes) -> int:
    _length, kind, _flags, _sequence, _port = _HEADER.unpack_from(message)
    if kind != _NLMSG_ERROR:
        return errno.EPROTO
    (code,) = struct.unpack_from("=i", message, _HEADER.size)
    return -int(code)
