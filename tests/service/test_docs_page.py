"""`/docs` loads nothing, runs nothing, and says what `/openapi.json` says."""

import base64
import hashlib
import re
from html import unescape
from html.parser import HTMLParser

import httpx
import pytest

from service.docs_page import rendered
from service.limits import SAFE_HEADERS
from service.params import SPECS


class Page(HTMLParser):
    """The tags of a page, and what they load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value for name, value in attrs if name in {"src", "href"} and tag != "a"]


async def test_it_loads_nothing_and_runs_nothing(client: httpx.AsyncClient) -> None:
    answer = await client.get("/docs")
    page = Page(answer.text)
    assert answer.status_code == 200
    assert page.loads == []
    assert {"script", "link", "img", "iframe"}.isdisjoint(page.tags)
    policy = answer.headers["content-security-policy"]
    (style,) = re.findall(r"<style>(.*?)</style>", answer.text, re.S)
    hashed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{hashed}';")


async def test_it_says_what_the_document_says(client: httpx.AsyncClient) -> None:
    document, page = (await client.get("/openapi.json")).json(), (await client.get("/docs")).text
    for path, methods in document["paths"].items():
        for method in methods:
            assert f"<code>{method.upper()} {path}</code>" in page
    for name in (*SPECS, "429", "/openapi.json", "needs no key"):
        assert name in page


async def test_its_call_works(client: httpx.AsyncClient) -> None:
    page = unescape((await client.get("/docs")).text)
    ((path, media, body),) = re.findall(
        r"curl -X POST localhost:8000(\S+) -H 'Content-Type: (\S+)' -d '(.*?)'", page
    )
    answer = await client.post(path, content=body, headers={"Content-Type": media})
    assert answer.status_code == 200


def test_what_it_shows_is_escaped() -> None:
    hostile = "<script>alert(1)</script>"
    answers = {"200": {"description": hostile}}
    operation = {"security": [], "description": hostile, "responses": answers}
    info = {"title": hostile, "description": hostile}
    assert "<script>" not in rendered({"info": info, "paths": {f"/{hostile}": {"get": operation}}})


@pytest.mark.parametrize("path", ["/livez", "/negatives", "/nothing", "/openapi.json", "/metrics"])
async def test_every_answer_is_hardened(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    for name, value in SAFE_HEADERS:
        assert answer.headers[name.decode()] == value.decode()
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert "server" not in answer.headers
