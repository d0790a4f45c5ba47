"""How an encoder is followed: one frozen configuration, saved with the state and each version."""

from dataclasses import asdict, dataclass, field
from typing import Any

from core.errors import ConfigError
from core.samplers import ADARConfig
from core.transition import Transition


@dataclass(frozen=True)
class FollowConfig:
    """The resolved configuration of `follow`.

    Attributes:
        num_steps: T, of a model that begins here; one that is live already keeps its own.
        denoiser: film or moment, likewise.
        transition: the default rule for t*, likewise.
        batch_size: rows of one step, B.
        replays: how many rows are learnt for each fresh one; above 0.
        buffer_rows: rows kept to learn from again.
        half_life_rows: a row as many rows old is drawn half as often as the newest.
        held_out_rows: the newest rows, judged on before they are learnt from.
        learning_rate: Adam's.
        publish_every: steps between publications.
        publish_drift: a drift measure above this publishes earlier; see `drift`.
        keep: versions that stay in the registry.
        save_seconds: between two saved states; what is not saved is learnt again after a kill.
        seed: of everything random.
        device: where everything runs.

    Raises:
        ConfigError: a value out of range.
    """

    num_steps: int = 50
    denoiser: str = "film"
    transition: Transition = field(default_factory=Transition)
    batch_size: int = 1024
    replays: float = 4.0
    buffer_rows: int = 65_536
    half_life_rows: int = 16_384
    held_out_rows: int = 2048
    learning_rate: float = 1e-3
    publish_every: int = 500
    publish_drift: float = 0.2
    keep: int = 5
    save_seconds: float = 15.0
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("batch_size", "half_life_rows", "publish_every", "keep"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}; it must be at least 1")
        if self.held_out_rows < 64:
            raise ConfigError(
                f"held_out_rows = {self.held_out_rows}; fewer than 64 cannot tell two models apart"
            )
        if self.buffer_rows < self.batch_size:
            raise ConfigError(
                f"buffer_rows = {self.buffer_rows}; it must hold a batch of {self.batch_size}"
            )
        for name in ("replays", "learning_rate", "publish_drift", "save_seconds"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} = {getattr(self, name)}; it must be above 0")

    @property
    def retry_every(self) -> int:
        """Steps between two attempts to publish, where drift asks or the gate said no."""
        return max(1, self.publish_every // 10)

    def sampler(self, dim: int) -> ADARConfig:
        """The configuration of a model that begins here."""
        return ADARConfig(
            dim=dim,
            num_steps=self.num_steps,
            denoiser=self.denoiser,
            transition=self.transition,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the manifest and the state."""
        return asdict(self)
