# SPDX-License-Identifier: Apache-2.0
"""The one C text BCC compiles, and the folder it takes for a kernel source tree.

BCC wants kernel headers: it force-includes ``linux/kconfig.h`` and its own helpers include a
handful of others. The folder made here holds just these, nearly all empty; every type comes
from the running kernel's BTF. BCC's rewriter only looks at the main file, so our own headers
are put in place textually.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ("assemble", "make_kernel_tree")

_INCLUDE = re.compile(r'^#include "([a-z_.]+)"$', re.MULTILINE)

# net/tcp_states.h; bpf_helpers wants AF_INET from a libc header we do not have.
_CONSTANTS = """
enum {
	TCP_ESTABLISHED = 1, TCP_SYN_SENT, TCP_SYN_RECV, TCP_FIN_WAIT1, TCP_FIN_WAIT2,
	TCP_TIME_WAIT, TCP_CLOSE, TCP_CLOSE_WAIT, TCP_LAST_ACK, TCP_LISTEN, TCP_CLOSING,
	TCP_NEW_SYN_RECV,
};
#define AF_INET 2
"""

_TYPES_H = """
#ifndef FOURWAVE_TYPES_H
#define FOURWAVE_TYPES_H
typedef signed char __s8;
typedef unsigned char __u8;
typedef short __s16;
typedef unsigned short __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;
typedef __s8 s8;
typedef __u8 u8;
typedef __s16 s16;
typedef __u16 u16;
typedef __s32 s32;
typedef __u32 u32;
typedef __s64 s64;
typedef __u64 u64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u64 __be64;
typedef __u16 __le16;
typedef __u32 __le32;
typedef __u64 __le64;
typedef __u16 __sum16;
typedef __u32 __wsum;
typedef _Bool bool;
typedef unsigned long size_t;
typedef unsigned long uintptr_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
#define __aligned_u64 __u64 __attribute__((aligned(8)))
#define __aligned(x) __attribute__((aligned(x)))
#define __always_inline inline __attribute__((always_inline))
#define __bitwise
#define __user
#define __percpu
#define true 1
#define false 0
#define NULL ((void *)0)
#define offsetof(type, member) __builtin_offsetof(type, member)
#endif
"""

_BPF_COMMON_H = """
#ifndef FOURWAVE_BPF_COMMON_H
#define FOURWAVE_BPF_COMMON_H
#define BPF_LD 0x00
#define BPF_LDX 0x01
#define BPF_ST 0x02
#define BPF_STX 0x03
#define BPF_ALU 0x04
#define BPF_JMP 0x05
#define BPF_W 0x00
#define BPF_H 0x08
#define BPF_B 0x10
#define BPF_IMM 0x00
#define BPF_ABS 0x20
#define BPF_IND 0x40
#define BPF_MEM 0x60
#define BPF_K 0x00
#define BPF_X 0x08
#endif
"""

_TREE = {
    "include/linux/kconfig.h": "#define CONFIG_BPF_SYSCALL 1\n",
    "include/linux/types.h": _TYPES_H,
    "include/linux/bpf_common.h": _BPF_COMMON_H,
    "include/uapi/linux/bpf.h": "#include <linux/types.h>\n",
    "include/uapi/linux/if_packet.h": "",
    "include/linux/version.h": "#define LINUX_VERSION_CODE 0\n#define KERNEL_VERSION(a, b, c) 0\n",
    "include/linux/log2.h": "",
    "include/linux/compiler.h": "",
    "include/asm/page.h": "",  # PAGE_SIZE comes by -D: it is the host's own
}


def assemble(bpf_dir: Path, main: str, kernel_types: str, facts: list[str]) -> str:
    """Return the C text of a program: `facts` become macros set to 1."""
    macros = "".join(f"#define {fact} 1\n" for fact in facts)
    text = (bpf_dir / main).read_text()
    body = _INCLUDE.sub(lambda match: (bpf_dir / match[1]).read_text(), text)
    return _CONSTANTS + macros + kernel_types + body


def make_kernel_tree(root: Path) -> None:
    """Write the folder BCC_KERNEL_SOURCE is to name."""
    for name, text in _TREE.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
