import pytest
import torch

from core.denoiser import Denoiser, FiLMDenoiser, MomentHead
from core.schedule import Schedule


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def make_denoiser(kind: str, schedule: Schedule, dim: int, dtype=torch.float64) -> Denoiser:
    """A denoiser with random weights, so that nothing is at its neutral start."""
    torch.manual_seed(3)
    denoiser = (FiLMDenoiser if kind == "film" else MomentHead)(schedule, dim, hidden=16)
    torch.nn.init.normal_(denoiser.out.weight, std=0.1)
    torch.nn.init.normal_(denoiser.out.bias, std=0.1)
    return denoiser.to(dtype).requires_grad_(False)
