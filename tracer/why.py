# SPDX-License-Identifier: Apache-2.0
"""One sentence per close: what happened, with the figures it was judged by.

It says only what the record proves. Every Reason has its sentence; where a
verdict is missing, the sentence says what could not be seen.
"""

from __future__ import annotations

from tracer.verdict import Reason
from tracer.why_abortive import ABORTIVE, lost
from tracer.why_facts import Facts, Sentence
from tracer.why_graceful import GRACEFUL

__all__ = ("SENTENCES", "Facts", "why")

UNKNOWN: dict[Reason, Sentence] = {
    Reason.NOT_A_CLOSE: lambda f: f"the record says CLOSE from {f.old_state}: not a teardown",
    Reason.GAP: lambda f: (
        f"a transition of this socket was missed (the last one came from {f.old_state}), "
        "so the verdict is left open"
    ),
    Reason.CONTRADICTION: lambda f: (
        f"the evidence contradicts itself (CLOSE from {f.old_state}), so the verdict is left open"
    ),
    Reason.UNEXPLAINED: lambda f: (
        f"closed in {f.old_state} without a RST or an error, and nothing tells who did it"
    ),
    Reason.NO_ERROR_NO_RST: lambda f: (
        f"the kernel dropped the orphaned socket in {f.old_state} without a RST or an error, "
        "as it does when the network namespace goes away"
    ),
}

SENTENCES: dict[Reason, Sentence] = UNKNOWN | GRACEFUL | ABORTIVE


def why(facts: Facts) -> str:
    """Return one sentence, without a full stop, for a person."""
    sentence = SENTENCES[facts.reason](facts)
    if facts.reason in ABORTIVE or facts.data_lost:
        sentence += lost(facts)
    if facts.to_itself:
        sentence += "; peer and socket are one: it was connected to its own port"
    return f"{sentence}; a send raised SIGPIPE" if facts.sigpipe else sentence
