"""(c) mosec, with our collapsed chain in it: what is compared is the serving.

Its HTTP side is Rust; bodies go to the worker process over a Unix socket and are bytes there. It
gives the worker no query string, so n is fixed when it starts.

Settings that were best: one stage, no batching (it gains nothing on a CPU for requests of this
size, and waits for more of them), the answer as a view of the tensor.
"""

import argparse
import os
import sys
import warnings
from pathlib import Path

import mosec

from bench.serving.kernel import Kernel

warnings.filterwarnings("ignore", "IPC data", RuntimeWarning)  # told once a call, on stderr


def arguments() -> argparse.Namespace:
    """Ours; mosec reads its own from the environment."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--registry", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--n", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    return parser.parse_args()


class Negatives(mosec.Worker):
    """Bytes in, bytes out."""

    resp_mime_type = "application/octet-stream"

    def __init__(self) -> None:
        super().__init__()
        args = arguments()
        self.n = args.n
        self.kernel = Kernel(args.registry, args.model, threads=args.threads)

    def deserialize(self, data: bytearray) -> bytearray:
        """As they are."""
        return data

    def forward(self, data: bytearray) -> memoryview:
        """Negatives, as bytes."""
        return self.kernel.from_bytes(data, self.n)

    def serialize(self, data: memoryview) -> memoryview:
        """As they are."""
        return data


if __name__ == "__main__":
    args = arguments()
    os.environ |= {
        "MOSEC_ADDRESS": "127.0.0.1",
        "MOSEC_PORT": str(args.port),
        "MOSEC_TIMEOUT": "60000",
        "MOSEC_LOG_LEVEL": "warning",
        "MOSEC_MAX_REQUEST_SIZE": str(2**30),
    }
    mosec_arguments, sys.argv[1:] = sys.argv[1:], []
    server = mosec.Server()
    sys.argv[1:] = mosec_arguments  # its workers read ours again
    server.append_worker(Negatives, num=args.workers)
    server.run()
