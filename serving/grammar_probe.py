"""Compiles grammars of strangers in a process that may be killed; nothing of ours is imported.

Some schemas of a few hundred bytes take minutes to compile, inside a library that cannot be
interrupted, and others might exhaust its stack. `serving.grammar_guard` runs this file, sends one
JSON object a line (`{"grammar": ..., "limits": {...}}`) and reads one JSON text a line: what is
wrong with the grammar, empty if nothing is.
"""

from __future__ import annotations

import json
import resource
import sys

from llguidance import LLMatcher, LLParserLimits

_MEMORY_BYTES = 2 << 30


def main() -> None:
    """Answer until the input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    for line in sys.stdin:
        asked = json.loads(line)
        problem = LLMatcher.validate_grammar(
            asked["grammar"], limits=LLParserLimits(**asked["limits"])
        )
        is_warning = problem.startswith("WARNING")
        print(json.dumps("" if is_warning else problem), flush=True)


if __name__ == "__main__":
    main()
