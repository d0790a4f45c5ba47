"""torch in, torch out; and numpy alone where torch is not installed."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from turnpoint_client import InvalidInputError

from tests.client.fake import Fake
from tests.client.harness import both

U = torch.tensor([[1.0, 2, 3], [4, 5, 6]])
P = torch.tensor([[7.0, 8, 9], [1, 0, -1]])
FORMATS = ["octet-stream", "safetensors", "json"]


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_as_numpy(form: str) -> None:
    tensors = both(Fake, lambda c: c.negatives(U, P, n=2, format=form))
    arrays = both(Fake, lambda c: c.negatives(U.numpy(), P.numpy(), n=2, format=form))
    assert tensors.requests == arrays.requests
    assert isinstance(tensors.result.negatives, torch.Tensor)
    np.testing.assert_array_equal(tensors.result.negatives.numpy(), arrays.result.negatives)
    if form != "octet-stream":
        assert tensors.result.transition.dtype == torch.int64


def test_items_are_indices_of_a_table() -> None:
    items = both(Fake, lambda c: c.items(U, P, n=2, dtype="float16")).result.items
    assert torch.equal(items, torch.tensor([[0, 1], [3, 4]]))
    assert torch.arange(6)[items].shape == (2, 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("returns", ["negatives", ("negatives", "transition", "distribution")])
def test_half_precision_stays_half(dtype: torch.dtype, returns: Any) -> None:
    answer = both(Fake, lambda c: c.negatives(U, P, n=2, dtype=dtype, returns=returns)).result
    assert answer.negatives.dtype == dtype
    assert torch.equal(answer.negatives[:, 1].float(), P + U)


@pytest.mark.parametrize(
    "users",
    [U.double(), U.bfloat16(), U.long(), U.T.contiguous().T, U.clone().requires_grad_()],
    ids=["double", "bfloat16", "long", "strided", "grad"],
)
def test_any_tensor_of_numbers(users: torch.Tensor) -> None:
    outcome = both(Fake, lambda c: c.negatives(users, P, returns="negatives"))
    assert outcome.sent[0].body == U.numpy().tobytes() + P.numpy().tobytes()
    assert not outcome.result.negatives.requires_grad


def test_answers_can_be_written_to() -> None:
    answer = both(Fake, lambda c: c.negatives(U, P)).result
    answer.negatives.zero_()
    answer.transition.add_(1)


def test_thresholds_and_ids_may_be_tensors() -> None:
    options = {"threshold": torch.tensor([0.5, 1]), "user_ids": torch.tensor([1, 2])}
    tensors = both(Fake, lambda c: c.negatives(U, P, **options))
    lists = both(Fake, lambda c: c.negatives(U, P, threshold=[0.5, 1], user_ids=[1, 2]))
    assert tensors.requests == lists.requests


def test_a_distribution_is_drawn_from_by_torch() -> None:
    law = both(Fake, lambda c: c.distribution(U, P)).result
    assert torch.equal(law.draw(3, 5), law.draw(3, torch.Generator().manual_seed(5)))
    torch.manual_seed(1)
    one = law.draw(3)
    torch.manual_seed(1)
    assert torch.equal(one, law.draw(3))
    z = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(5))
    assert torch.equal(law.draw(3, 5), P[:, None] + U[:, None] * z)
    with pytest.raises(InvalidInputError, match="pass a seed or a torch"):
        law.draw(1, np.random.default_rng())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_draw_has_the_dtype_of_its_law(dtype: str) -> None:
    law = both(Fake, lambda c: c.distribution(U, P, dtype=dtype)).result
    assert law.draw(2).dtype == law.mean.dtype == getattr(torch, dtype)
    law = both(Fake, lambda c: c.distribution(U.numpy(), P.numpy(), dtype=dtype)).result
    assert law.draw(2).dtype == law.mean.dtype


def test_no_torch_is_needed_nor_imported() -> None:
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError("torch is not installed here")
sys.meta_path.insert(0, Refuse())
import numpy as np
from tests.client.fake import Fake
from tests.client.harness import both
u = np.ones((2, 3), np.float32)
for form in ("octet-stream", "safetensors", "json"):
    answer = both(Fake, lambda c: c.negatives(u, u, n=2, format=form)).result
    assert answer.negatives.shape == (2, 2, 3)
answer = both(Fake, lambda c: c.negatives(u, u, dtype="bfloat16")).result
assert answer.negatives.dtype == np.float32
assert both(Fake, lambda c: c.distribution(u, u)).result.draw(4).shape == (2, 4, 3)
assert "torch" not in sys.modules
print("done")
"""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "done"), done.stderr
