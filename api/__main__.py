"""`python -m api` is the `talipot` command."""

from api.cli import main

main()
