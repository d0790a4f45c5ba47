"""Encoders that are somebody else's: made by an entry point, exported, or known by their tables."""

from trainer.encoders.external.entry_point import PREFIX, from_entry_point
from trainer.encoders.external.snapshot import Snapshot
from trainer.encoders.external.tables import Embedder

__all__ = ["PREFIX", "Embedder", "Snapshot", "from_entry_point"]
