"""What `follow` goes on from: one safetensors file, replaced atomically (`trainer.state_file`)."""

from pathlib import Path

from core.errors import CheckpointRefusedError
from core.samplers import ADAR, rebuild
from trainer.following.config import FollowConfig
from trainer.following.drift import Cloud
from trainer.following.learner import Learner
from trainer.following.publisher import Publications
from trainer.state_file import (
    below,
    optimizer_tensors,
    read_state,
    restore_optimizer,
    write_state,
)

STATE_FILE = "follow.safetensors"
_RINGS = ("held_out", "replay")
_PLAIN = ("version", "step", "attempt", "loss")  # of `Publications`


class State:
    """The file of one model.

    Args:
        folder: where it is; made when it is first written.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / STATE_FILE
        self._seen = self._stamp()

    def is_ours(self) -> bool:
        """Whether nobody else has written it since we read or wrote it."""
        return self._stamp() == self._seen

    def save(
        self, learner: Learner, published: Publications, settled: list[str], last: str
    ) -> None:
        """Write everything that the next step depends on.

        Args:
            learner: its weights, optimiser, rows and counts.
            published: what the publisher remembers.
            settled: ids of entries that are in here, and that their source may not know of.
            last: the last entry's.
        """
        tensors = {f"sampler/{k}": v for k, v in learner.sampler.state_dict().items()}
        tensors |= optimizer_tensors("optimizer", learner.optimizer)
        for name in _RINGS:
            users, positives = getattr(learner, name).all()
            tensors |= {f"{name}/users": users, f"{name}/positives": positives}
        cloud = published.cloud
        if cloud is not None:
            tensors |= {"cloud/mean": cloud.mean, "cloud/covariance": cloud.covariance}
        record = {
            "method": learner.sampler.method,
            "sampler": learner.sampler.summary()["sampler"],
            "learner": learner.record(),
            "published": {name: getattr(published, name) for name in _PLAIN},
            "cloud_rows": cloud.rows if cloud else 0,
            "settled": settled,
            "last": last,
        }
        write_state(self.file, tensors, {"record": record})
        self._seen = self._stamp()

    def load(self, config: FollowConfig) -> tuple[Learner, Publications, list[str], str] | None:
        """The inverse of `save`; None where nothing was saved.

        Raises:
            CheckpointCorruptError: it cannot be read.
            CheckpointRefusedError: it is of a method that cannot be followed.
        """
        self._seen = self._stamp()
        if self._seen is None:
            return None
        tensors, plain = read_state(self.file, ("record",))
        record = plain["record"]
        sampler = rebuild(record["method"], record["sampler"])
        if not isinstance(sampler, ADAR):
            raise CheckpointRefusedError(f"{self.file} has method {sampler.method}; wanted is adar")
        sampler.load_state_dict(below("sampler/", tensors))
        learner = Learner(sampler, config)
        restore_optimizer(learner.optimizer, below("optimizer/", tensors))
        for name in _RINGS:
            rows = below(f"{name}/", tensors)
            getattr(learner, name).add(rows["users"], rows["positives"])
        learner.restore(record["learner"])
        cloud = None
        if moments := below("cloud/", tensors):
            on_device = {k: v.to(config.device) for k, v in moments.items()}
            cloud = Cloud(**on_device, rows=record["cloud_rows"])
        published = Publications(**record["published"], cloud=cloud)
        return learner, published, record["settled"], record["last"]

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = self.file.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns
