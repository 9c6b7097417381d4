"""Protocols by name and version, laid out as their protobuf packages are."""
