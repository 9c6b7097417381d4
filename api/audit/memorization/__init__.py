"""`talipot audit memorization`: how much of its training text a model recites."""
