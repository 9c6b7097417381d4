"""`talipot batch`: a file of prompts through a server's gRPC door, every line answered once."""
