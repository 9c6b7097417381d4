"""The gRPC door: `talipot.v1.Generation` over `api.service`, for batch users."""
