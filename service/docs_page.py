"""`/docs`: the OpenAPI document as one page without a script.

Swagger's page loads its code from somebody else's servers and runs it where keys are typed in. This
one loads nothing at all, works without a network, and its policy says so.
"""

import base64
import hashlib
import json
from html import escape
from typing import Any

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
section { border-top: 1px solid #ccc; margin-top: 2rem }
code, pre { font: 14px/1.4 ui-monospace, monospace }
pre { background: #f4f4f4; padding: .75rem; overflow-x: auto; max-height: 20rem }
table { border-collapse: collapse }
td { border-bottom: 1px solid #eee; padding: .25rem 1rem .25rem 0; vertical-align: top }
"""
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

BOUNDS = {"minimum": "at least", "maximum": "at most"}


def rendered(document: dict[str, Any]) -> str:
    """The page.

    Args:
        document: OpenAPI, as `service.openapi.document` makes it.
    """
    title = escape(document["info"]["title"])
    operations = "".join(
        _operation(method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style><h1>{title}</h1><p>{escape(document['info']['description'])} "
        'For programs: <a href="/openapi.json">/openapi.json</a>.</p>'
        f"{operations}</html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    """One route: what it does, who may, its parameters, a call that works, its answers."""
    key = "needs a key" if operation["security"] else "needs no key"
    content = operation.get("requestBody", {}).get("content", {})
    parameters = _table(
        (name["name"], name["in"], name.get("description", ""), _told(name["schema"]))
        for name in operation.get("parameters", ())
    )
    answers = _table(
        (status, answer["description"]) for status, answer in operation["responses"].items()
    )
    formats = ", ".join(f"<code>{escape(name)}</code>" for name in content)
    examples = "".join(
        _curl(method, path, name, body["example"])
        for name, body in content.items()
        if "example" in body
    )
    return (
        f"<section><h2><code>{method.upper()} {escape(path)}</code></h2>"
        f"<p>{escape(operation.get('description', ''))} ({key})</p>"
        + (f"<p>Body: {formats}</p>" if formats else "")
        + f"{examples}{parameters}<h3>Answers</h3>{answers}</section>"
    )


def _curl(method: str, path: str, media: str, body: Any) -> str:
    call = (
        f"curl -X {method.upper()} localhost:8000{path} -H 'Content-Type: {media}' "
        f"-d '{json.dumps(body)}'"
    )
    return f"<pre>{escape(call)}</pre>"


def _table(rows: Any) -> str:
    cells = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table>{cells}</table>" if cells else ""


def _told(schema: dict[str, Any]) -> str:
    """A parameter's type, choices and range."""
    item = schema.get("items", schema)
    told = [item.get("type", "")]
    told += [" | ".join(map(str, item["enum"]))] if "enum" in item else []
    told += [f"{word} {item[bound]}" for bound, word in BOUNDS.items() if bound in item]
    return ", ".join(told)
