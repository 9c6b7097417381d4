"""The HTTP door: OpenAI-compatible routes over `api.service`."""
