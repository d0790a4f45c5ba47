"""(b) LitServe, with our collapsed chain in it: what is compared is the serving.

`/json` takes and gives lists of numbers, its default. `/binary` is the best that its public
interface allows: a request body that is neither JSON nor a form has no place in LitServe, but its
request type may be any FastAPI parameter, so ours is a dependency that reads the raw body; a
`Response` goes back as it is.

Settings that were best: the ZeroMQ transport (`fast_queue`), one API server, no batching (it gains
nothing on a CPU for requests of this size), no timeout.
"""

import argparse
import os
from pathlib import Path
from typing import Annotated, Any

import litserve
import torch
from fastapi import Depends, Request
from starlette.responses import Response

from bench.serving.kernel import Kernel


async def raw_body(request: Request) -> bytes:
    """The body."""
    return await request.body()


class Negatives(litserve.LitAPI):
    """The kernel, loaded in each worker."""

    def __init__(self, registry: Path, model: str, n: int, threads: int, **options: Any) -> None:
        super().__init__(**options)
        self.where = (registry, model, "collapsed", threads)
        self.n = n

    def setup(self, device: str) -> None:  # noqa: ARG002
        """In the worker."""
        self.kernel = Kernel(*self.where)


class Json(Negatives):
    """Lists in, lists out."""

    def decode_request(self, request: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Tensors of lists."""
        users, positives = torch.tensor(request["users"]), torch.tensor(request["positives"])
        return users, positives, request["n"]

    def predict(self, x: tuple[torch.Tensor, torch.Tensor, int]) -> torch.Tensor:
        """Negatives."""
        return self.kernel(*x)

    def encode_response(self, output: torch.Tensor) -> dict[str, Any]:
        """Lists of tensors."""
        return {"negatives": output.tolist()}


class Binary(Negatives):
    """Bytes in, bytes out."""

    def decode_request(self, request: Annotated[bytes, Depends(raw_body)]) -> bytearray:
        """Torch wants memory that can be written."""
        return bytearray(request)

    def predict(self, x: bytearray) -> memoryview:
        """Negatives, as bytes."""
        return self.kernel.from_bytes(x, self.n)

    def encode_response(self, output: memoryview) -> Response:
        """Only bytes can be sent between processes."""
        return Response(bytes(output), media_type="application/octet-stream")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--registry", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--n", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--kind", choices=("json", "binary"), required=True)
    args = parser.parse_args()
    os.environ["LITSERVE_LOG_LEVEL"] = "WARNING"
    kind = Json if args.kind == "json" else Binary
    api = kind(args.registry, args.model, args.n, args.threads, api_path=f"/{args.kind}")
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=args.workers, timeout=False, fast_queue=True
    )
    server.run(
        host="127.0.0.1",
        port=args.port,
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
    )
