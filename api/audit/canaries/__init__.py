"""`talipot audit canaries`: trains models on text with planted repetitions, and asks for it."""
