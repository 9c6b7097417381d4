"""`talipot audit`: runs audits on any model, keeps what is done, and writes the report."""
