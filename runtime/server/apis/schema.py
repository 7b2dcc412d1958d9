"""OpenAPI document, generated from the types that decode the requests."""

import inspect
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from moembed.server.apis.endpoint import Api, Endpoint
from moembed.version import __version__

_STATUSES = {
    "400": "Invalid request",
    "401": "Missing or wrong API key",
    "403": "Host name or page origin that is not allowed",
    "404": "Unknown model",
    "408": "Body that did not arrive in time",
    "413": "More bytes, characters or tokens than a request may contain",
    "415": "Body in an unsupported Content-Encoding",
    "422": "More texts than a request may contain, or an invalid value",
    "429": "Full queue, or too many concurrent requests; the header Retry-After says when to try again",
    "503": "Model that is still loading",
}


def openapi_document(apis: Sequence[Api]) -> bytes:
    """Return the document of some APIs, as JSON."""
    types = [
        kind
        for api in apis
        for kind in (_error_type(api), *(t for o in api.endpoints for t in (o.request, o.reply) if t is not None))
    ]
    # Structs of different APIs share names: msgspec then uses their qualified names.
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    by_type = dict(zip(map(str, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for api in apis:
        for endpoint in api.endpoints:
            paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(api, endpoint, by_type)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "moembed", "version": __version__},
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            },
        }
    )


def _operation(api: Api, endpoint: Endpoint, by_type: dict[str, Any]) -> dict[str, Any]:
    error = _content(by_type[str(_error_type(api))])
    success = {"description": "Success"}
    operation: dict[str, Any] = {
        "operationId": endpoint.method.lower() + re.sub(r"[^\w.]", "_", endpoint.path),
        "summary": endpoint.summary,
        "tags": [api.name],
        "security": [] if endpoint.public else [{}, {"key": []}],
        "responses": {
            "200": success | (_content(by_type[str(endpoint.reply)]) if endpoint.reply is not None else {}),
            "default": {"description": "Error"} | error,
        },
    }
    if endpoint.parameter:
        operation["parameters"] = [
            {"name": endpoint.parameter, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        ]
    if endpoint.request is not None:
        operation["requestBody"] = {"required": True} | _content(by_type[str(endpoint.request)])
        operation["responses"] |= {status: {"description": text} | error for status, text in _STATUSES.items()}
    return operation


def _content(schema: Any) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _error_type(api: Api) -> Any:
    return inspect.signature(api.error_body).return_annotation
