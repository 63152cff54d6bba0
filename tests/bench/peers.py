# SPDX-License-Identifier: Apache-2.0
"""What the peers need and may not have: trace events in sight, and kernel headers.

bcc's own tools compile against kernel headers. Where there are none they get a folder of
stand-ins with the two members they read at this kernel's offsets, so that they can be
compared at all; it makes them start faster than with real headers, never slower.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Final

from tracer.kernel.btf import Btf
from tracer.kernel.source_text import make_kernel_tree

# A mount namespace of its own, as not every machine has tracefs where the peers look for it.
_MOUNT: Final = """
[ -e /sys/kernel/debug/tracing ] || mount -t debugfs none /sys/kernel/debug
[ -e /sys/kernel/tracing/events ] || mount -t tracefs none /sys/kernel/tracing
exec "$@"
"""
WITH_TRACEFS: Final = ("unshare", "--mount", "sh", "-c", _MOUNT, "sh")

EMPTY: Final = (
    "linux/tcp.h",
    *(f"uapi/linux/{name}.h" for name in ("if_ether", "in", "ip", "ipv6", "udp", "tcp", "icmp")),
)
SOCK_H: Final = """
enum {{ TCP_ESTABLISHED = 1, TCP_SYN_SENT, TCP_SYN_RECV, TCP_FIN_WAIT1, TCP_FIN_WAIT2,
	TCP_TIME_WAIT, TCP_CLOSE, TCP_CLOSE_WAIT, TCP_LAST_ACK, TCP_LISTEN, TCP_CLOSING }};
#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6
#define TASK_COMM_LEN 16
struct sock;
struct tcp_sock {{
	union {{
		struct {{ u8 before_received[{bytes_received}]; u64 bytes_received; }};
		struct {{ u8 before_acked[{bytes_acked}]; u64 bytes_acked; }};
	}};
}};
"""


def environment(scratch: Path) -> dict[str, str]:
    """Return what bcc's tools must be told: nothing where kernel headers are installed."""
    if Path(f"/lib/modules/{platform.release()}/build").exists():
        return {}
    tree = scratch / "headers"
    if not tree.exists():
        _make_stand_ins(tree)
    return {"BCC_KERNEL_SOURCE": os.fspath(tree)}


def _make_stand_ins(tree: Path) -> None:
    make_kernel_tree(tree)
    texts = dict.fromkeys(EMPTY, "")
    texts["net/sock.h"] = SOCK_H.format(**_offsets("bytes_received", "bytes_acked"))
    texts["uapi/linux/ptrace.h"] = "struct pt_regs;\n"
    for name, text in texts.items():
        path = tree / "include" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _offsets(*members: str) -> dict[str, int]:
    btf = Btf()
    found = {name: btf.member("tcp_sock", name) for name in members}
    return {name: member.bit_offset // 8 for name, member in found.items() if member}
