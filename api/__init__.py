"""How people reach Talipot: the HTTP and gRPC doors and the command line.

The only place where the other packages are wired together.
"""
