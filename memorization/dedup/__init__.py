"""Finds and removes what a corpus says twice: near-duplicate documents, then repeated passages."""
