"""Limits that every door holds a request to, beside the engine's own in `serving.request`."""

MAX_CHOICES_PER_PROMPT = 128
MAX_TEMPERATURE = 2
MAX_TOKEN_ID = 2**31 - 1
