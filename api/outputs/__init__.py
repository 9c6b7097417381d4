"""The output log: every finished generation, and what side pipelines found in it."""
