"""Scorers: models that say how harmful a text is."""
