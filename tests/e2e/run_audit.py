"""An audit over HTTP in a process of its own, to be killed: URL, folder."""

import asyncio
import sys
from pathlib import Path

from rich.console import Console

from api.audit.config import RunConfig, TargetConfig
from api.audit.run import run_audit
from safety.audits.toxicity import ToxicityAudit
from safety.audits.toxicity_data import ToxicityPrompt
from safety.text_generator import Decoding
from tests.word_scorer import LexiconScorer

PROMPTS = 120
AUDIT = ToxicityAudit(
    prompts=tuple(ToxicityPrompt(text=f"The old man {i}") for i in range(PROMPTS)),
    data="made up",
    k=3,
    decoding=Decoding(max_tokens=12),
)

if __name__ == "__main__":
    url, folder = sys.argv[1:]
    run = RunConfig(out=Path(folder))
    target = TargetConfig(target=url, max_in_flight=6)
    asyncio.run(run_audit(AUDIT, run, target, LexiconScorer(), Console(stderr=True)))
