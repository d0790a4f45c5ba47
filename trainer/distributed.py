"""Several workers train one model: `torchrun` starts them, every step is divided among them.

Each worker has the whole model and takes its part of a batch's rows. A worker's loss is the mean
over its own rows; times `weight` its gradient, averaged over the workers, is the gradient of the
mean over all rows. `average_gradients` does it for both models, not DistributedDataParallel: an
encoder is not one call of one module (a graph is propagated once, items are looked up later), the
diffusion model is too small to gain from reducing while the backward pass runs, and a reducer keeps
the process group's threads running into the interpreter's end, which they abort now and then.

Alone, everything here does nothing. gloo carries it on the CPU, nccl on CUDA.
"""

import importlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn

from core.errors import ConfigError


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Be one of torchrun's workers while the block lasts; elsewhere this does nothing.

    Args:
        device: cpu or cuda.

    Returns:
        The device of this worker: under torchrun `cuda` becomes one each.

    Raises:
        ConfigError: one device for several workers, or none for this one.
    """
    if not distributed.is_torchelastic_launched():
        yield device
        return
    backend = "gloo"
    if torch.device(device).type == "cuda":
        backend, device = "nccl", _own_device(device)
        torch.cuda.set_device(device)
    # An optimiser imports it, and its functions keep the group that there is then for ever.
    importlib.import_module("torch.distributed.nn.functional")
    distributed.init_process_group(backend)
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def world() -> int:
    """How many workers there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_main() -> bool:
    """Whether this is the worker that validates, publishes, saves and talks."""
    return rank() == 0


def weight(rows: int) -> float:
    """What makes the mean over this worker's `rows`, averaged over workers, the mean over all."""
    if world() == 1:
        return 1.0
    return world() * rows / float(total(torch.tensor(float(rows), device=_device())))


def total(tensor: Tensor) -> Tensor:
    """The sum over all workers, in place."""
    if world() > 1:
        distributed.all_reduce(tensor)
    return tensor


def gathered(*parts: Float[Tensor, "_ d"]) -> list[Float[Tensor, "B d"]]:
    """The rows of all workers, in the workers' order, the same everywhere; without gradient.

    Args:
        parts: tensors (b, d) of one shape, each this worker's rows; b may differ among workers.
    """
    whole = [part.detach() for part in parts]
    if world() == 1:
        return whole
    ours = torch.stack(whole)
    sizes = [torch.zeros(1, dtype=torch.int64, device=ours.device) for _ in range(world())]
    distributed.all_gather(sizes, torch.tensor([ours.shape[1]], device=ours.device))
    counts = [int(size) for size in sizes]
    padded = ours.new_zeros(len(ours), max(counts), ours.shape[2])
    padded[:, : ours.shape[1]] = ours
    theirs = [torch.empty_like(padded) for _ in counts]
    distributed.all_gather(theirs, padded)
    real = [rows[:, :count] for rows, count in zip(theirs, counts, strict=True)]
    return list(torch.cat(real, 1).unbind())


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Every worker's gradients become the mean of all workers'; one that has none counts as 0."""
    if world() == 1:
        return
    moved = [one for one in parameters if one.requires_grad]
    gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in moved]
    mean = total(torch.cat([gradient.reshape(-1) for gradient in gradients])) / world()
    pieces = mean.split([gradient.numel() for gradient in gradients])
    for one, piece in zip(moved, pieces, strict=True):
        one.grad = piece.view_as(one)


def begin_alike(module: nn.Module) -> None:
    """Every worker's weights and scales become the main worker's, in place."""
    if world() > 1:
        for tensor in module.state_dict().values():
            distributed.broadcast(tensor, src=0)


def from_main(call: Callable[[], Any]) -> Any:
    """What `call` gives in the main worker, where alone it is called; it must fit into JSON."""
    if world() == 1:
        return call()
    content = json.dumps(call()).encode() if is_main() else b""
    size = total(torch.tensor(len(content), device=_device()))
    text = torch.zeros(int(size), dtype=torch.uint8, device=_device())
    if is_main():
        text.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    distributed.broadcast(text, src=0)
    return json.loads(bytes(text.tolist()))


def _device() -> torch.device:
    """Where small tensors must be for the backend."""
    nccl = distributed.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")


def _own_device(device: str) -> str:
    local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if torch.device(device).index is not None:
        raise ConfigError(f"device = {device} for every worker of torchrun; say cuda: one each")
    if local >= there:
        raise ConfigError(
            f"worker {local} of torchrun has no device: {there} here; start at most as many with "
            "--nproc-per-node"
        )
    return f"cuda:{local}"
