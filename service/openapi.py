"""The document of the API: `/openapi.json`, and `/docs` made from it.

What is said of parameters comes from the table that parses them. The example has the dimension of
the live model, so that it can be sent as it stands.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.codecs import JSON, OCTET_STREAM, SAFETENSORS
from service.negatives import Service
from service.params import SPECS, Spec
from service.problems import MEDIA_TYPE, STATUS

DESCRIPTION = "Negatives for training recommenders, generated at the transition point."
API_VERSION = "1"  # of the contract, not of the package
EXAMPLE_DIM = 4  # before anything is published
NUMBERS = {"type": "array", "items": {"type": "number"}}
MATRIX = {"type": "array", "items": NUMBERS, "description": "[B, d]"}
WHOLES = {"type": "array", "items": {"type": "integer"}}
ENCODED = {
    "type": "object",
    "description": "the same in base64, little-endian, C order",
    "required": ["shape", "dtype", "data"],
    "additionalProperties": False,
    "properties": {
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "dtype": {"enum": ["float32", "float16", "bfloat16"]},
        "data": {"type": "string", "contentEncoding": "base64"},
    },
}
PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what was wrong, the value, the mend"},
        "code": {"type": "string", "description": "stable; see docs/errors.md"},
        "request_id": {"type": "string"},
    },
}
HEADERS = {
    "X-Model": "the model that answered",
    "X-Model-Version": "the one version that computed the whole answer",
    "X-Seed": "the seed that repeats it",
    "X-Request-ID": "the caller's, or a new one",
    "Server-Timing": "milliseconds of decode, queue, sample, encode",
}
OCTET_HEADERS = {
    "X-Negatives-Shape": "B,n,d; octet-stream only",
    "X-Negatives-Dtype": "float32, float16 or bfloat16; octet-stream only",
}
KEY = {
    "type": "http",
    "scheme": "bearer",
    "description": "one of the service's keys; needs none where none is configured",
}
PIN = {
    "type": "object",
    "required": ["version"],
    "properties": {"version": {"type": "string", "description": "one of GET /models/NAME"}},
    "additionalProperties": False,
}
BINARY = {"type": "string", "format": "binary"}


def document(app: FastAPI, service: Service) -> dict[str, Any]:
    """The OpenAPI document, with an example that the live model answers."""
    described = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    for methods in described["paths"].values():
        for operation in methods.values():
            operation["responses"].pop("422", None)  # nothing is validated by the framework
    described["paths"]["/metrics"]["get"]["responses"]["200"]["content"] = {
        "text/plain": {"schema": {"type": "string"}}
    }
    for path, codes in {"/livez": (503,), "/readyz": (503,), "/models/{name}": (404,)}.items():
        described["paths"][path]["get"]["responses"] |= _problems(codes)
    pin = described["paths"]["/models/{name}/live"]["post"]
    pin["requestBody"] = {"required": True, "content": {JSON: {"schema": PIN}}}
    pin["responses"] |= _problems((400, 403, 404, 503))
    live = next(iter(service.models.live.values()), None)
    operation = described["paths"]["/negatives"]["post"]
    operation["parameters"] = [_parameter(name, spec) for name, spec in SPECS.items()] + [
        {
            "name": "X-Request-Timeout-Ms",
            "in": "header",
            "description": "milliseconds; past them the request is dropped with 504",
            "schema": {"type": "integer", "minimum": 1},
        },
    ]
    operation["requestBody"] = _request_body(live.sampler.dim if live else EXAMPLE_DIM)
    statuses = {status for status, _ in STATUS.values()}
    operation["responses"] = {"200": _response()} | _problems(sorted(statuses))
    for path, methods in described["paths"].items():
        for operation in methods.values():
            _say_who_may(operation, open_to_all=path in service.gate.open)
    described["components"] = {"schemas": {"Problem": PROBLEM}, "securitySchemes": {"key": KEY}}
    return described


def _say_who_may(operation: dict[str, Any], *, open_to_all: bool) -> None:
    operation["security"] = [] if open_to_all else [{"key": []}]
    if not open_to_all:
        operation["responses"] |= _problems((401,))


def example(dim: int) -> dict[str, Any]:
    """A request of two rows in JSON."""
    row = [round(0.1 * (column % 7 - 3), 1) for column in range(dim)]
    return {
        "users": [row, row[::-1]],
        "positives": [row[::-1], row],
        "n": 2,
        "returns": ["negatives", "transition", "scores"],
        "seed": 7,
    }


def _schema(spec: Spec) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": spec.kind}
    if spec.choices:
        schema["enum"] = list(spec.choices)
    if spec.low is not None:
        schema["minimum"] = spec.low
    if spec.high is not None:
        schema["maximum"] = spec.high
    return {"type": "array", "items": schema, "minItems": 1} if spec.repeated else schema


def _parameter(name: str, spec: Spec) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": spec.meaning, "schema": _schema(spec)}


def _request_body(dim: int) -> dict[str, Any]:
    scalars = {
        name: {**_schema(spec), "description": spec.meaning}
        for name, spec in SPECS.items()
        if name != "dtype"
    }
    arrays = {
        "users": {"anyOf": [MATRIX, ENCODED], "description": "[B, d] user embeddings"},
        "positives": {"anyOf": [MATRIX, ENCODED], "description": "[B, d] positive items"},
        "threshold": {
            "anyOf": [NUMBERS, ENCODED],
            "description": "[B] mu-, in units of score; rules theorem and exact",
        },
        "item_features": {
            "type": "object",
            "additionalProperties": {"anyOf": [MATRIX, ENCODED]},
            "description": "[B, f] of the positives by modality, for a model whose inputs name "
            "them; a missing one counts as unknown",
        },
        "popularity": {
            "anyOf": [WHOLES, ENCODED],
            "description": "[B] strata of popularity, 0 the least, for a model that takes them",
        },
        "user_ids": {
            "type": "array",
            "items": {"type": ["string", "integer"]},
            "description": "[B], a hint for a cache; never logged",
        },
    }
    json_schema = {
        "type": "object",
        "required": ["users", "positives"],
        "properties": {**arrays, **scalars},
        "additionalProperties": False,
    }
    return {
        "required": True,
        "content": {
            JSON: {"schema": json_schema, "example": example(dim)},
            OCTET_STREAM: {
                "schema": {**BINARY, "description": "users then positives, float32, C order"}
            },
            SAFETENSORS: {
                "schema": {
                    **BINARY,
                    "description": "users, positives F32/F16/BF16 [B, d]; threshold [B]; "
                    "item_features.NAME [B, f]; popularity, user_ids I64 [B]",
                }
            },
        },
    }


def _response() -> dict[str, Any]:
    tensors = {
        "negatives": {"type": "array", "items": MATRIX, "description": "[B, n, d]"},
        "weights": {
            **MATRIX,
            "description": "[B, n], with the negatives of methods that weigh them",
        },
        "transition": {"type": "array", "items": {"type": "integer"}, "description": "[B] t*"},
        "mean": MATRIX,
        "std": MATRIX,
        "scores": {**MATRIX, "description": "[B, n]"},
        "items": {
            "type": "array",
            "items": {"type": "array", "items": {"type": "integer"}},
            "description": "[B, n], which items of its catalogue a model chose that holds one",
        },
    }
    told = {
        "model": {"type": "string"},
        "version": {"type": "string"},
        "seed": {"type": "integer"},
    }
    schema = {"type": "object", "required": list(told), "properties": {**told, **tensors}}
    return {
        "description": "What was asked for, in the format that Accept asks for",
        "headers": {
            name: {"description": meaning, "schema": {"type": "string"}}
            for name, meaning in {**HEADERS, **OCTET_HEADERS}.items()
        },
        "content": {
            JSON: {"schema": schema},
            OCTET_STREAM: {"schema": {**BINARY, "description": "the bare negatives [B, n, d]"}},
            SAFETENSORS: {"schema": {**BINARY, "description": "named tensors, __metadata__"}},
        },
    }


def _problems(statuses: Any) -> dict[str, Any]:
    """A problem document for each status."""
    titles: dict[int, list[str]] = {}
    for kind, (status, title) in STATUS.items():
        titles.setdefault(status, []).append(f"{title} (`{kind.code}`)")
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        str(status): {"description": "; ".join(titles[status]), "content": content}
        for status in statuses
    }
