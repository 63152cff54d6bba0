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

from tracer.kernel import inet_diag, netns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracer.census import NetnsFacts, Rows

__all__ = ("destroy", "explain")

_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}


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
            inet_diag.channel() as channel,
        ):
            channel.sendto(_request(row), (0, 0))
            return _answer(channel.recv(4096))
    except OSError as error:
        return error.errno or errno.EIO
    except KeyError:
        return errno.ENOENT


def _request(row: Rows) -> bytes:
    family, every_state = _FAMILIES[int(row["family"])], (1 << 13) - 1
    kind = inet_diag.DESTROY, inet_diag.ACK
    return inet_diag.request(*kind, family, every_state, _sockid(row))


# struct inet_diag_sockid, of any interface.
def _sockid(row: Rows) -> bytes:
    addresses = [_address(row[name].tobytes(), int(row["family"])) for name in ("laddr", "raddr")]
    ports = struct.pack(">HH", int(row["lport"]), int(row["rport"]))
    return ports + b"".join(addresses) + struct.pack("=IQ", 0, int(row["cookie"]))


# IPv4 takes the first four of sixteen bytes there; a mapped address is found as IPv4.
def _address(address: bytes, family: int) -> bytes:
    return address[12:] + bytes(12) if family == 4 else address


def _answer(received: bytes) -> int:
    kind, body = next(inet_diag.messages(received), (0, b""))
    return inet_diag.error_of(body) if kind == inet_diag.ERROR else errno.EPROTO
