"""The document is complete, and its example works as it stands."""

import httpx

from service.limits import POLICY, SAFE_HEADERS
from service.params import SPECS
from service.problems import STATUS


async def test_the_example_is_answered(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    operation = document["paths"]["/negatives"]["post"]
    example = operation["requestBody"]["content"]["application/json"]["example"]
    answer = await client.post("/negatives", json=example)
    assert answer.status_code == 200
    shape = (len(example["users"]), example["n"], len(example["users"][0]))
    found = answer.json()["negatives"]
    assert (len(found), len(found[0]), len(found[0][0])) == shape
    described = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer.json().keys() <= described["properties"].keys()
    assert set(described["required"]) <= answer.json().keys()


async def test_everything_is_described(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert set(document["paths"]) == {
        "/negatives",
        "/livez",
        "/readyz",
        "/metrics",
        "/models",
        "/models/{name}",
        "/models/{name}/live",
    }
    operation = document["paths"]["/negatives"]["post"]
    formats = {"application/json", "application/octet-stream", "application/x-safetensors"}
    assert set(operation["requestBody"]["content"]) == formats
    assert set(operation["responses"]["200"]["content"]) == formats
    query = {p["name"]: p for p in operation["parameters"] if p["in"] == "query"}
    assert query.keys() == SPECS.keys()
    assert query["n"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 256}
    assert query["hardness"]["schema"] == {"type": "number", "minimum": 0, "maximum": 1}
    assert all(p["description"] for p in operation["parameters"])
    statuses = {str(status) for status, _ in STATUS.values()}
    assert operation["responses"].keys() == statuses | {"200"}
    for status in statuses:
        assert list(operation["responses"][status]["content"]) == ["application/problem+json"]


async def test_real_answers_have_the_described_headers(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    operation = document["paths"]["/negatives"]["post"]
    example = operation["requestBody"]["content"]["application/json"]["example"]
    described = {name.lower() for name in operation["responses"]["200"]["headers"]}
    answer = await client.post(
        "/negatives",
        json={**example, "returns": ["negatives"]},
        headers={"Accept": "application/octet-stream"},
    )
    everywhere = {"content-length", "content-type", POLICY.decode()}
    everywhere |= {name.decode() for name, _ in SAFE_HEADERS}
    assert set(answer.headers) - everywhere == described
