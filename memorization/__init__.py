"""Was this text in the training data? Indexes, tracing and extraction studies live here.

The package imports nothing else of Talipot: it works on texts and token ids, whoever produced
them. It holds no code yet; this release serves generation alone.
"""
