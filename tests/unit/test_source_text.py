# SPDX-License-Identifier: Apache-2.0
"""The C text BCC gets: whole, in one piece, and the same on every kernel but for its types."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.data.btf.blobs import BLOBS
from tracer.kernel.btf import Btf
from tracer.kernel.facts import facts
from tracer.kernel.header import kernel_types
from tracer.kernel.source_text import _TYPES_H, assemble, make_kernel_tree
from tracer.tcp import TcpState

BPF: Final = Path(__file__).parents[2] / "bpf"
CC: Final = shutil.which("cc")
# BPF helpers are declared by BCC; here they may be implicit.
CFLAGS: Final = ("-std=gnu11", "-w", "-Wno-implicit-function-declaration", "-Wno-int-conversion")

needs_cc = pytest.mark.skipif(CC is None, reason="no C compiler: install gcc or clang")


def compile_c(text: str, *options: str) -> None:
    assert CC is not None
    command = [CC, *CFLAGS, "-x", "c", *options, "-"]
    result = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr


def test_our_own_headers_are_put_in_place() -> None:
    """BCC's rewriter looks at the main file only."""
    mains = ("teardown.bpf.c", "census.bpf.c", "origins.bpf.c")
    text = "".join(assemble(BPF, main, "", []) for main in mains)
    assert '#include "' not in text
    for path in BPF.glob("*.[ch]"):
        body = re.sub(r'^#include "[a-z_.]+"\n', "", path.read_text(), flags=re.MULTILINE)
        assert body.splitlines()[-1] in text
        assert 0 < text.count(body[-200:]) <= len(mains), path.name


def test_facts_and_types_come_before_what_uses_them(tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text('#include "own.h"\n#include <linux/types.h>\nint last;\n')
    (tmp_path / "own.h").write_text("int own;\n")
    text = assemble(tmp_path, "main.c", "struct generated {};\n", ["HAS_ONE", "HAS_TWO"])
    order = (
        "TCP_CLOSE",
        "#define HAS_ONE 1\n#define HAS_TWO 1\n",
        "struct generated {};",
        "int own;",
        "#include <linux/types.h>",
        "int last;",
    )
    places = [text.index(what) for what in order]
    assert places == sorted(places)


def test_backslashes_of_a_header_stay(tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text('#include "own.h"\n')
    (tmp_path / "own.h").write_text('#define A(x) \\\n\tdo_it(x, "\\n\\1")\n')
    assert assemble(tmp_path, "main.c", "", []).endswith((tmp_path / "own.h").read_text() + "\n")


def test_a_missing_header_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text('#include "absent.h"\n')
    with pytest.raises(FileNotFoundError, match=r"absent\.h"):
        assemble(tmp_path, "main.c", "", [])


@needs_cc
def test_states_have_the_kernels_numbers(tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text("")
    asserts = [f'_Static_assert(TCP_{one.name} == {one.value}, "{one.name}");' for one in TcpState]
    compile_c("\n".join((assemble(tmp_path, "main.c", "", []), *asserts)), "-fsyntax-only")


def test_the_tree_has_what_bcc_looks_for(tmp_path: Path) -> None:
    make_kernel_tree(tmp_path)
    make_kernel_tree(tmp_path)  # twice is once
    for name in (
        "linux/kconfig.h",
        "linux/types.h",
        "linux/bpf_common.h",
        "uapi/linux/bpf.h",
        "uapi/linux/if_packet.h",
        "linux/version.h",
        "linux/log2.h",
        "asm/page.h",
    ):
        assert (tmp_path / "include" / name).is_file()


@needs_cc
def test_the_tree_compiles_by_itself(tmp_path: Path) -> None:
    """Each header alone, all together, and each twice."""
    make_kernel_tree(tmp_path)
    root = tmp_path / "include"
    names = [str(path.relative_to(root)) for path in sorted(root.rglob("*.h"))]
    lines = "".join(f"#include <{name}>\n" for name in names)
    types = [*re.findall(r"\b([su](?:8|16|32|64))\b", " s8 u8 s16 u16 s32 u32 s64 u64 ")]
    sizes = "".join(f'_Static_assert(sizeof({t}) * 8 == {t[1:]}, "{t}");\n' for t in types)
    compile_c(lines + lines + sizes, "-fsyntax-only", "-nostdinc", f"-I{root}")


@needs_cc
@pytest.mark.parametrize("kernel", BLOBS)
def test_the_helpers_for_kernel_differences_compile(kernel: str, tmp_path: Path) -> None:
    """Every branch of compat.h is some kernel's, and types fit what it does with them."""
    btf = Btf(str(BLOBS[kernel]))
    for path in BPF.glob("*.h"):
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "main.c").write_text('#include "records.h"\n#include "compat.h"\n')
    text = assemble(tmp_path, "main.c", kernel_types(btf), facts(btf))
    compile_c(_TYPES_H + text, "-fsyntax-only")
