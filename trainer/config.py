"""What a training run is: one frozen configuration, resolved once and saved with its results."""

from dataclasses import asdict, dataclass, field
from typing import Any

from core.errors import ConfigError
from core.samplers import METHODS, ADARConfig, Catalogue
from core.transition import Transition

NO_METHOD = "none"
UNIFORM = "uniform"  # the sampler of e_j unless told otherwise
_AT_LEAST_1 = (
    "epochs",
    "batch_size",
    "eval_every",
    "patience",
    "candidates",
    "draws",
    "diffusion_steps",
)
_AT_LEAST_0 = ("l2", "gdnsm_start", "cnsdiff_contrast", "cnsdiff_diffusion")


@dataclass(frozen=True)
class TrainConfig:
    """The resolved configuration of `cotrain`.

    Attributes:
        encoder: a name in `trainer.encoders.ENCODERS`.
        split: how a data set that comes as one file is split; a name in `trainer.split.SPLITS`.
        negatives: the baseline sampler of e_j; a name in `trainer.sampling.PICKERS`. Catalogue,
            whose e_d is an item, has no e_j in its loss and leaves it at uniform.
        candidates: M, of the samplers and of the method that choose among candidates.
        draws: k, generated negatives a row, each of M candidates of its own; of catalogue.
        ahns_alpha: of the sampler `ahns`; see `trainer.sampling.AHNS`.
        ahns_beta: the same.
        ahns_power: the same; below 0.
        method: `none`, or what generates e_d; a name in `core.samplers.METHODS`.
        dim: d.
        weight: lambda of Eq. 12, in [0, 1]; of adar.
        transition: the rule for t*; of adar and catalogue.
        num_steps: T.
        schedule: the noise schedule; cnsdiff has its own.
        denoiser: film or moment; of adar.
        reconstruction: reading of Eq. 8's second term.
        standardize: divide embeddings by running RMS values; False is the literal paper.
        ancestral: add the posterior's noise in the reverse chain; Eq. 10 adds none.
        epochs: the most passes over the training pairs.
        batch_size: pairs per step; sequences per step for an encoder of sequences.
        max_length: the longest sequence.
        dropout: in [0, 1), of the encoders that have one.
        cl4srec_contrast: weight of the contrastive loss of cl4srec.
        cl4srec_temperature: of that loss's softmax.
        learning_rate: Adam's, of the encoder.
        diffusion_learning_rate: Adam's, of the diffusion model.
        l2: weight of the encoder's penalty.
        eval_every: epochs between validations.
        patience: validations without a better `metric` before stopping.
        metric: what is maximised on validation.
        seed: of everything random.
        device: where everything runs.
        diffusion_steps: the diffusion model's steps for each of the encoder.
        ddim_steps: of the generating chain of gdnsm; None is DDPM's T.
        gdnsm_denoiser: linear or mlp.
        gdnsm_guidance: s, of every modality.
        gdnsm_start: S, the epoch at which the queue begins to open; 0 opens all of it at once.
        gdnsm_power: lambda of the queue's schedule.
        gdnsm_per_level: M, negatives of each level in the queue.
        cnsdiff_variant: released, described or causal; see `core.samplers.cnsdiff`.
        cnsdiff_strata: K, strata of popularity, of the causal variant.
        cnsdiff_contrast: weight of L_CL.
        cnsdiff_diffusion: weight of L_diff in the encoder's loss.
    """

    encoder: str = "lightgcn"
    split: str = "random"
    negatives: str = UNIFORM
    candidates: int = 16
    draws: int = 4
    ahns_alpha: float = 1.0
    ahns_beta: float = 0.1
    ahns_power: int = -2
    method: str = NO_METHOD
    dim: int = 64
    weight: float = 0.1
    transition: Transition = field(default_factory=Transition)
    num_steps: int = 50
    schedule: str = "linear"
    denoiser: str = "film"
    reconstruction: str = "one_step"
    standardize: bool = True
    ancestral: bool = False
    epochs: int = 100
    batch_size: int = 2048
    max_length: int = 50
    dropout: float = 0.0
    cl4srec_contrast: float = 0.1
    cl4srec_temperature: float = 1.0
    learning_rate: float = 3e-3
    diffusion_learning_rate: float = 1e-3
    l2: float = 1e-3
    eval_every: int = 5
    patience: int = 4
    metric: str = "recall@20"
    seed: int = 0
    device: str = "cpu"
    diffusion_steps: int = 1
    ddim_steps: int | None = None
    gdnsm_denoiser: str = "mlp"
    gdnsm_guidance: float = 1.1
    gdnsm_start: int = 30
    gdnsm_power: float = 1.0
    gdnsm_per_level: int = 2
    cnsdiff_variant: str = "causal"
    cnsdiff_strata: int = 5
    cnsdiff_contrast: float = 0.3
    cnsdiff_diffusion: float = 1e-6

    def __post_init__(self) -> None:
        known = (NO_METHOD, *METHODS)
        if self.method not in known:
            raise ConfigError(f"method = {self.method!r}; known: {', '.join(known)}")
        if self.method == Catalogue.method and self.negatives != UNIFORM:
            raise ConfigError(
                f"negatives = {self.negatives!r} with method catalogue, which chooses the items of "
                f"its loss itself; leave negatives at {UNIFORM}, or take another method"
            )
        if not 0 <= self.weight <= 1:
            raise ConfigError(f"weight = {self.weight}; lambda of Eq. 12 lies in [0, 1]")
        for name in _AT_LEAST_1:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}; it must be at least 1")
        for name in ("learning_rate", "diffusion_learning_rate"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} = {getattr(self, name)}; it must be above 0")
        for name in _AT_LEAST_0:
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} = {getattr(self, name)}; it must be at least 0")

    def sampler(self) -> ADARConfig:
        """The configuration of ADAR's sampler."""
        return ADARConfig(
            dim=self.dim,
            num_steps=self.num_steps,
            schedule=self.schedule,
            denoiser=self.denoiser,
            reconstruction=self.reconstruction,
            standardize=self.standardize,
            ancestral=self.ancestral,
            transition=self.transition,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the report, the manifest and the training state."""
        return asdict(self)
