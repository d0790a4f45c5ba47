"""The parts of `trainer.follow`: learning from an encoder that is trained elsewhere."""
