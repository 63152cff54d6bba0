# SPDX-License-Identifier: Apache-2.0
"""Write fourwave.1 and the shells' completions from the command line itself: `make docs`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from click.shell_completion import get_completion_class

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tracer import __version__
from tracer.cli import PROG, cli

if TYPE_CHECKING:
    from collections.abc import Iterator

LICENCE: Final = "# SPDX-License-Identifier: Apache-2.0"
HERE: Final = Path(__file__).parent
SHELLS: Final = {"bash": PROG, "zsh": f"_{PROG}", "fish": f"{PROG}.fish"}
EXIT_CODES: Final = (
    ("0", "Done; SIGINT and SIGTERM end a running view so."),
    ("1", "Failed while running."),
    ("2", "Wrong usage."),
    ("3", "This host lacks something; the message says what and how to get it."),
    ("130", "Interrupted before any result."),
)
SIGNALS: Final = (("SIGHUP", "serve reads its web configuration file again."),)


def manual() -> str:
    """Return the page in man(7)'s macros."""
    return "\n".join([*_head(), *_commands(), *_tail()]) + "\n"


def completion(shell: str) -> str:
    """Return what the shell has to source; it asks the program itself what there is."""
    made = get_completion_class(shell)
    assert made is not None
    lines = made(cli, {}, PROG, f"_{PROG.upper()}_COMPLETE").source().strip().splitlines()
    lines.insert(lines[0].startswith("#"), LICENCE)  # zsh wants its mark first
    return "\n".join(lines) + "\n"


def _head() -> Iterator[str]:
    yield rf".\" {LICENCE[2:]}"
    yield f'.TH FOURWAVE 1 "" "fourwave {__version__}" "User Commands"'
    yield ".SH NAME"
    yield r"fourwave \- watch every TCP connection of this host say goodbye"
    yield ".SH SYNOPSIS"
    yield rf".B {PROG}"
    yield r"[\-h] [\-\-version] \fICOMMAND\fR [\fIOPTION\fR]..."
    yield ".SH COMMANDS"


def _commands() -> Iterator[str]:
    group = click.Context(cli, info_name=PROG, **cli.context_settings)
    for name, command in cli.commands.items():
        context = click.Context(command, info_name=name, parent=group)
        usage = " ".join(command.collect_usage_pieces(context))
        yield f".SS {PROG} {name} {_escaped(usage)}"
        yield from _paragraphs(command.help or "")
        for parameter in command.get_params(context):
            if record := parameter.get_help_record(context):
                yield ".TP"
                yield rf".B {_escaped(record[0])}"
                yield _escaped(" ".join(record[1].split()))


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        yield _escaped(" ".join(paragraph.split()))
        yield ".PP"


def _tail() -> Iterator[str]:
    for title, rows in (("EXIT STATUS", EXIT_CODES), ("SIGNALS", SIGNALS)):
        yield f".SH {title}"
        for term, meaning in rows:
            yield from (".TP", f".B {term}", meaning)
    yield ".SH SEE ALSO"
    yield ".BR ss (8),"
    yield ".BR tcp (7)"


# A dot or a quote at the start of a line is a macro; a hyphen to be typed is not a dash.
def _escaped(text: str) -> str:
    safe = text.replace("\\", r"\(rs").replace("-", r"\-")
    return rf"\&{safe}" if safe[:1] in {".", "'"} else safe


def pages() -> dict[Path, str]:
    """Return everything that is generated, by its path."""
    made = {HERE / "fourwave.1": manual()}
    for shell, name in SHELLS.items():
        made[HERE / "completions" / name] = completion(shell)
    return made


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
