"""`talipot corpus`: what is done to training text."""
