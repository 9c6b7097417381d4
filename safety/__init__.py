"""Is this text harmful or biased? Scorers, guards and audits live here.

The package imports nothing else of Talipot: it works on texts and on small protocols, so the same
audit runs against any model.
"""
