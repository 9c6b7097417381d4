"""Training: the PaLM recipe, its input pipeline and its checkpoints."""
