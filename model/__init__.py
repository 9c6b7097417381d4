"""What is computed: the PaLM forward pass, tokenizers, checkpoints, partitioning and training.

Imports no other package of Talipot.
"""
