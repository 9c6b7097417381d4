"""The OpenAPI document, made exact: what FastAPI assumes is replaced by what the server does."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

# FastAPI documents its own validation error on each route with input; ours is a 400.
_UNUSED_SCHEMAS = ("HTTPValidationError", "ValidationError")
_KEY_SCHEME = "ApiKey"


def describe_api(app: FastAPI, *, model_name: str, requires_key: bool) -> None:
    """Install the generator of `/openapi.json` for a server of one model."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, model_name, requires_key)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _document(app: FastAPI, model_name: str, requires_key: bool) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, summary=app.summary, routes=app.routes
    )
    schemas = document["components"]["schemas"]
    for name in _UNUSED_SCHEMAS:
        schemas.pop(name, None)
    _name_the_model(document, model_name)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            if requires_key and not path.startswith(("/health", "/metrics")):
                operation["security"] = [{_KEY_SCHEME: []}]
                operation["responses"]["401"] = _error("No API key, or one that is not known.")
    if requires_key:
        document["components"]["securitySchemes"] = {
            _KEY_SCHEME: {"type": "http", "scheme": "bearer"}
        }
    return document


def _name_the_model(document: dict[str, Any], model_name: str) -> None:
    """Say which model can be named, so that /docs offers a request that works."""
    for schema in document["components"]["schemas"].values():
        field = schema.get("properties", {}).get("model")
        for choice in () if field is None else (field, *field.get("anyOf", ())):
            if choice.get("type") == "string":
                choice["enum"] = [model_name]
    for operation in document["paths"]["/v1/models/{model_id}"].values():
        (parameter,) = operation["parameters"]
        parameter["schema"]["enum"] = [model_name]


def _error(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/ErrorResponse"}
    return {"description": description, "content": {"application/json": {"schema": schema}}}
