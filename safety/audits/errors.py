"""What can be wrong with an audit's input."""

from __future__ import annotations


class AuditDataError(Exception):
    """A data file is missing, damaged or of another format; names file, line and field."""


class AuditSettingsError(Exception):
    """Settings of an audit exclude each other or are out of range; names field, value, limit."""
