"""What is written is executed: the blocks of docs/client.md, in order, in one namespace."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from tests.client.fake import (
    INTEGERS,
    OCTETS,
    SAFETENSORS,
    Answer,
    Fake,
    Request,
    problem,
    write_safetensors,
)
from tests.client.loopback import asgi, serving

PAGE = Path(__file__).parents[2] / "docs" / "client.md"


def zeros(request: Request) -> Answer:
    """Answers of the right shape, faster than the fake can for 2048 rows."""
    if request.method == "GET":
        return Fake()(request)
    n = int(request.query.get("n", ["1"])[0])
    if n > 256:
        return problem(422, "out_of_range", detail=f"n is {n}; at most 256")
    shapes: dict[str, Any] = {
        "negatives": {"negatives": [2048, n, 64]},
        "transition": {"transition": [2048]},
        "distribution": {"mean": [2048, 64], "std": [2048, 64]},
        "items": {"items": [2048, n]},
    }
    arrays = {
        name: (
            "I64" if name in INTEGERS else "F32",
            shape,
            bytes(int(np.prod(shape)) * (8 if name in INTEGERS else 4)),
        )
        for asked in request.query["returns"]
        for name, shape in shapes[asked].items()
    }
    assert request.headers["accept"] in {OCTETS, SAFETENSORS}
    told = {"model": "demo", "version": "v2", "seed": request.query.get("seed", ["7"])[0]}
    return Answer(200, {"content-type": SAFETENSORS}, write_safetensors(arrays, told))


def test_the_page_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 9
    names: dict[str, Any] = {}
    with serving(asgi(zeros, [])) as url:
        for block in blocks:
            exec(block.replace("http://localhost:8000", url), names)
