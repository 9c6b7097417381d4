"""`talipot.v1`: the proto, and what `make proto` generated from it."""
