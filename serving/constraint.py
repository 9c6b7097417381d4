"""What the text of a request must be: a JSON schema or a regular expression, as its caller gave it.

Plain data without a parser; `serving.grammar` compiles it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from serving.checks import show
from serving.errors import RequestError

ConstraintKind: TypeAlias = Literal["json_schema", "regex"]

MAX_SCHEMA_BYTES = 65_536
"""Most bytes of a JSON schema's text."""
MAX_REGEX_BYTES = 8_192
"""Most bytes of a regular expression."""

ANY_OBJECT = '{"type":"object"}'
"""The schema of OpenAI's `{"type": "json_object"}`."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """A language that the generated text must be a sentence of, from its first byte to its last.

    Attributes:
        kind: What `text` is.
        text: A JSON schema (draft 2020-12, as JSON) or a regular expression (Rust's syntax).
        field: The request's field that asked for it, for error messages; two constraints that
            differ in it alone are equal.

    Raises:
        RequestError: The text is too long or no Unicode; `param` is `field`.
    """

    kind: ConstraintKind
    text: str
    field: str = dataclasses.field(compare=False)

    def __post_init__(self) -> None:
        """Check the type and size of the text; what it says is the compiler's to judge."""
        if not isinstance(self.text, str):
            raise RequestError(f"{self.field}={show(self.text)} must be a text", param=self.field)
        limit = MAX_SCHEMA_BYTES if self.kind == "json_schema" else MAX_REGEX_BYTES
        try:
            size = len(self.text.encode("utf-8"))
        except UnicodeEncodeError:
            raise RequestError(
                f"{self.field} has a lone surrogate, which is no Unicode", param=self.field
            ) from None
        if size > limit:
            raise RequestError(
                f"{self.field} has {size} bytes; at most {limit} are accepted", param=self.field
            )

    @classmethod
    def of_regex(cls, pattern: str, *, field: str = "guided_regex") -> Constraint:
        """Text that a regular expression matches as a whole."""
        return cls(kind="regex", text=pattern, field=field)

    @classmethod
    def of_json_schema(
        cls, schema: str | Mapping[str, Any], *, field: str = "json_schema"
    ) -> Constraint:
        """A JSON value that a schema accepts; the schema is JSON text or what that parses to.

        Raises:
            RequestError: It is nested too deeply to be written as JSON, or too long.
        """
        if isinstance(schema, str):
            return cls(kind="json_schema", text=schema, field=field)
        try:
            # The order of its keys is kept: it is the order in which properties are generated.
            text = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
        except RecursionError:
            raise RequestError(f"{field} is nested too deeply", param=field) from None
        return cls(kind="json_schema", text=text, field=field)
