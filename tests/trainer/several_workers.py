"""What each of torchrun's workers does for the tests: `-m tests.trainer.several_workers FOLDER`.

Every worker leaves a safetensors file a scenario, `<scenario>-<rank>`, of the weights it ends with.
"""

import sys
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from core.samplers import ADAR, ADARConfig
from tests.trainer.methods.test_methods import CASES, config_of, featured, go_on, start
from tests.trainer.test_cotrain import CONFIG, encoder_of, small_data
from trainer import distributed
from trainer.batches import Batch
from trainer.cotrain import cotrain, new_run
from trainer.encoders import Encoded
from trainer.pipeline import Outputs, train
from trainer.run import Diffusion
from trainer.sampling.base import Negatives
from trainer.shards import own_randomness

ROWS, STEPS, DIM = 257, 30, 8  # odd: the workers' parts differ
METHODS = (*CASES, "catalogue")
# Not SASRec: its keys' bias has no gradient but rounding, of which Adam makes whole steps.
ENCODERS = ("mf", "lightgcn", "gru4rec")


class NextItem:
    """e_j without randomness, so that who draws what does not matter."""

    def pick(self, batch: Batch, encoded: Encoded, generator: torch.Generator) -> Negatives:
        items = (batch.items + 1) % 80
        return Negatives(encoded.items(items), items)


def embeddings() -> tuple[Tensor, Tensor, Tensor]:
    """users, positives, negatives of the whole batch, (B, d) float64."""
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(3, ROWS, DIM, generator=generator, dtype=torch.float64).unbind())


def fresh_diffusion() -> Diffusion:
    """In float64: what is compared then differs by arithmetic far less than by a mistake."""
    torch.manual_seed(5)
    sampler = ADAR(ADARConfig(dim=DIM, num_steps=10)).double()
    torch.nn.init.normal_(sampler.denoiser.out.weight, std=0.1)
    # SGD moves as far as the gradient says; Adam would forgive a wrong scale.
    optimizer = torch.optim.SGD(sampler.parameters(), lr=0.05)
    return Diffusion(sampler, optimizer, torch.Generator().manual_seed(2))


def diffusion_steps(averaged: bool = True, weighted: bool = True) -> dict[str, Tensor]:
    """`STEPS` steps on this worker's rows; without averaging everybody goes a way of its own."""
    diffusion = fresh_diffusion()
    rank, world = distributed.rank(), distributed.world()
    users, positives, negatives = (whole[rank::world] for whole in embeddings())
    weight = distributed.weight(len(users)) if weighted else 1.0
    with own_randomness([diffusion.generator]):
        for _ in range(STEPS):
            diffusion.sampler.observe(*distributed.gathered(users, positives, negatives))
            diffusion.optimizer.zero_grad()
            loss = diffusion.sampler.loss(users, positives, diffusion.generator).total
            (weight * loss).backward()
            if averaged:
                distributed.average_gradients(diffusion.sampler.parameters())
            diffusion.optimizer.step()
    return diffusion.sampler.state_dict()


def beginnings() -> dict[str, dict[str, Tensor]]:
    """Weights that each worker drew by itself, and then what all of them begin with."""
    torch.manual_seed(distributed.rank())
    sampler = ADAR(ADARConfig(dim=DIM, num_steps=10))
    drawn = {name: tensor.clone() for name, tensor in sampler.state_dict().items()}
    distributed.begin_alike(sampler)
    return {"drawn": drawn, "begun": sampler.state_dict()}


def threads() -> list[str]:
    """The names of this process's threads."""
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]


def one_epoch(encoder: str, batch_size: int = 50) -> dict[str, Tensor]:
    """Algorithm 1 without its random parts: what is left is the order, which all share."""
    config = replace(CONFIG, encoder=encoder, method="none", epochs=1, batch_size=batch_size)
    data = small_data()
    run = cotrain(new_run(encoder_of(data, config), config), data, NextItem(), config)
    return run.encoder.state_dict()


def method(case: str) -> dict[str, Tensor]:
    """Algorithm 1 with each method."""
    data, config = featured(small_data()), config_of(case, epochs=2)
    return go_on(start(data, config), data, config)._weights()


def whole_training(folder: Path, epochs: int, state: str) -> dict[str, Tensor]:
    """Everything on, with dropout: from data to report."""
    config = replace(CONFIG, encoder="sasrec", dropout=0.3, epochs=epochs)
    outputs = Outputs(registry=str(folder / state / "registry"), state=folder / state)
    result = train(small_data(), config, outputs)
    return result.run._weights()


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    with distributed.joined("cpu"):
        assert distributed.from_main(lambda: {"a": [0.1, None]}) == {"a": [0.1, None]}
        found = {
            "averaged": diffusion_steps(),
            "apart": diffusion_steps(averaged=False),
            "unweighted": diffusion_steps(weighted=False),
            **beginnings(),
        }
        found |= {f"epoch {encoder}": one_epoch(encoder) for encoder in ENCODERS}
        found |= {f"method {case}": method(case) for case in METHODS}
        found["uninterrupted"] = whole_training(folder, 3, "whole")
        whole_training(folder, 1, "halves")
        found["resumed"] = whole_training(folder, 3, "halves")
        for name, weights in found.items():
            plain = {key: tensor.clone().contiguous() for key, tensor in weights.items()}
            safetensors.torch.save_file(plain, folder / f"{name}-{distributed.rank()}")
        assert any("gloo" in name for name in threads())
    # A thread of the process group that outlives it may abort the interpreter's end.
    assert not any("gloo" in name for name in threads()), threads()


if __name__ == "__main__":
    main()
