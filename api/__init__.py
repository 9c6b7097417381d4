"""How people reach Talipot: the HTTP door and the command line.

The only place where the other packages are wired together.
"""
