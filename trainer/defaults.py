"""What each encoder and method is trained with unless told otherwise; see docs."""

from typing import Any

from core.errors import ConfigError
from core.samplers.catalogue import HARDEST
from core.transition import Transition
from trainer.config import NO_METHOD, TrainConfig
from trainer.encoders.external import PREFIX

_SEQUENCES: dict[str, Any] = {
    "split": "leave-one-out",
    "batch_size": 256,  # sequences; the paper's
    "num_steps": 20,  # T; the paper's for sequences
    "l2": 0.0,
    "dropout": 0.5,
}

DEFAULTS: dict[str, dict[str, Any]] = {
    "mf": {"l2": 3e-2},
    "lightgcn": {},
    "ngcf": {"dropout": 0.1},
    "vbpr": {"learning_rate": 1e-3},
    "mmlightgcn": {},
    "gru4rec": {**_SEQUENCES, "dropout": 0.3},
    "sasrec": _SEQUENCES,
    "cl4srec": _SEQUENCES,
}

METHOD_DEFAULTS: dict[str, dict[str, Any]] = {
    "cnsdiff": {"num_steps": 20},
    "catalogue": {"candidates": 32, "transition": HARDEST},
}
SEQUENCE_METHOD_DEFAULTS: dict[str, dict[str, Any]] = {
    "catalogue": {"candidates": 16},  # 32 are too hard for next items (docs/quality/ablations.md)
}


def rule_for(method: str) -> Transition:
    """The rule for t* that a method is trained with unless told otherwise."""
    rule: Transition = METHOD_DEFAULTS.get(method, {}).get("transition", Transition())
    return rule


def config_for(encoder: str, **given: Any) -> TrainConfig:
    """The configuration of a run: what is given, then the method's and the encoder's defaults.

    The common ones come last.

    Args:
        encoder: a name in `trainer.encoders.ENCODERS`, or `external:module:factory`, which has
            the common defaults alone.
        given: fields of `TrainConfig`; None means not given.

    Raises:
        ConfigError: no encoder has that name, or a value is out of range.
    """
    if encoder not in DEFAULTS and not encoder.startswith(PREFIX):
        raise ConfigError(f"no encoder is called {encoder!r}; choose one of {', '.join(DEFAULTS)}")
    chosen = {name: value for name, value in given.items() if value is not None}
    method, of_encoder = given.get("method", NO_METHOD), DEFAULTS.get(encoder, {})
    own = METHOD_DEFAULTS.get(method, {})
    if of_encoder.get("split") == "leave-one-out":
        own = {**own, **SEQUENCE_METHOD_DEFAULTS.get(method, {})}
    return TrainConfig(encoder=encoder, **{**of_encoder, **own, **chosen})
