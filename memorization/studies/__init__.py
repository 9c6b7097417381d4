"""What studies of memorization and contamination compute; who asks the model is left to others."""
