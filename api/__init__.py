"""How people reach Talipot: the HTTP door and the command line; the only place where parts are wired."""
