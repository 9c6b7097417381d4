"""Was this text in the training data? Indexes and tracing live here.

The package imports nothing else of Talipot: it works on texts and token ids, whoever produced
them. `memorization.index` says what an index answers, `memorization.opening` opens one.
"""
