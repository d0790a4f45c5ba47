"""(a) The straightforward build: FastAPI, lists of numbers, Algorithm 1 as it is printed.

Nothing here is slow on purpose: it is what the tutorial gives. Pydantic checks the lists, a sync
handler loops over the steps with torch's default threads, a dict of lists is the answer.
"""

import argparse
from pathlib import Path

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from bench.serving.kernel import Kernel


class Pairs(BaseModel):
    """A request."""

    users: list[list[float]]
    positives: list[list[float]]
    n: int = 1


def create_app(kernel: Kernel) -> FastAPI:
    """One route."""
    app = FastAPI()

    @app.post("/negatives")
    def negatives(pairs: Pairs) -> dict[str, list[list[list[float]]]]:
        found = kernel(torch.tensor(pairs.users), torch.tensor(pairs.positives), pairs.n)
        return {"negatives": found.tolist()}

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--registry", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args()
    app = create_app(Kernel(args.registry, args.model, "looped", threads=0))
    uvicorn.run(app, port=args.port, log_level="warning")
