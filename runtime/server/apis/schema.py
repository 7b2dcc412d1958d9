"""The OpenAPI document, made from the types that decode the requests."""

import inspect
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from moembed.server.apis.endpoint import Api, Operation
from moembed.version import __version__

_STATUSES = {
    "400": "The request cannot be used",
    "401": "No API key of this server",
    "403": "A host name that is none of the server's, or a page of an origin that may not call",
    "404": "There is no such model",
    "408": "The body did not arrive in time",
    "413": "More bytes, characters or tokens than a request may have",
    "415": "The body is in a Content-Encoding that is not read",
    "422": "More texts than a request may have, or a value that cannot be used",
    "429": "The queue is full; the header Retry-After says when to try again",
    "503": "The model is being loaded",
}


def document(apis: Sequence[Api]) -> bytes:
    """The document of some APIs, as JSON."""
    types = [
        kind
        for api in apis
        for kind in (_error_type(api), *(t for o in api.operations for t in (o.request, o.reply) if t is not None))
    ]
    # Structs of different APIs share names; a title in front tells them apart.
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    by_type = dict(zip(map(str, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for api in apis:
        for operation in api.operations:
            described = _operation(api, operation, by_type)
            paths.setdefault(operation.path, {})[operation.method.lower()] = described
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


def _operation(api: Api, operation: Operation, by_type: dict[str, Any]) -> dict[str, Any]:
    error = _content(by_type[str(_error_type(api))])
    answer = {"description": "Answered"}
    described: dict[str, Any] = {
        "operationId": operation.method.lower() + re.sub(r"[^\w.]", "_", operation.path),
        "summary": operation.summary,
        "tags": [api.name],
        "security": [] if operation.open else [{}, {"key": []}],
        "responses": {
            "200": answer | (_content(by_type[str(operation.reply)]) if operation.reply is not None else {}),
            "default": {"description": "Refused"} | error,
        },
    }
    if operation.parameter:
        described["parameters"] = [
            {"name": operation.parameter, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        ]
    if operation.request is not None:
        described["requestBody"] = {"required": True} | _content(by_type[str(operation.request)])
        described["responses"] |= {status: {"description": text} | error for status, text in _STATUSES.items()}
    return described


def _content(schema: Any) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _error_type(api: Api) -> Any:
    return inspect.signature(api.error).return_annotation
