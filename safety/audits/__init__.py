"""Audits: what is asked of a model, what its answers amount to, and how sure that is.

Pure: which texts to ask for (`units`), and findings from the answers. Who runs them, keeps them
and draws them is elsewhere.
"""
