"""The scalars of a request: from the query, or from the fields of a JSON body.

`SPECS` is the one table: it parses, it bounds, and the OpenAPI document is made from it. What
belongs to a transition rule is checked by `core.transition.Transition.override`.
"""

import math
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from core.errors import MalformedError, OutOfRangeError
from core.samplers.base import FEATURES
from core.transition import NEEDS_THRESHOLD, RULES, Transition

TENSORS = ("users", "positives", "threshold", "popularity", "user_ids")
FEATURES_FIELD = FEATURES.removesuffix(".")  # of a JSON body, an object of arrays
RETURNS = ("negatives", "transition", "distribution", "scores", "items")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
RULE = ("transition", "omega", "k", "hardness", "relative_margin", "absolute_margin")
RANDOM_SEEDS = 2**53  # what a JSON number holds exactly
_INTEGER = re.compile(r"[-+]?[0-9]{1,20}")
_NUMBER = re.compile(
    r"[-+]?([0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})([eE][-+]?[0-9]{1,4})?|nan|inf"
)


@dataclass(frozen=True)
class Spec:
    """One parameter: its kind, its closed range or its choices, and what it means."""

    kind: Literal["integer", "number", "string"]
    meaning: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    repeated: bool = False


SPECS = {
    "n": Spec("integer", "negatives per row; default 1", low=1, high=256),
    "transition": Spec(
        "string", "rule for the transition point; default: the checkpoint's", choices=RULES
    ),
    "omega": Spec("number", "of Eq. 11, above 0; rules score_aware and calibrated"),
    "k": Spec("number", "of Eq. 11, above 0; rules score_aware and calibrated"),
    "hardness": Spec("number", "share from easy 0 to hard 1; rules exact, fixed", low=0, high=1),
    "relative_margin": Spec(
        "number", "mu- = (1 - relative_margin) p_s; rules theorem and exact", low=0, high=1
    ),
    "absolute_margin": Spec(
        "number", "mu- = p_s - absolute_margin, in units of score; rules theorem and exact", low=0
    ),
    "progress": Spec(
        "number", "how far training is; methods that schedule their difficulty", low=0, high=1
    ),
    "returns": Spec(
        "string",
        "what to answer with; default negatives and transition, or negatives as octet-stream",
        choices=RETURNS,
        repeated=True,
    ),
    "seed": Spec(
        "integer",
        "same request, seed and version give the same answer; default: drawn by the service",
        low=0,
        high=2**63 - 1,
    ),
    "model": Spec("string", "default: the configured model, else the only one"),
    "version": Spec("string", "default: the model's live version"),
    "dtype": Spec("string", "of the floats in a binary answer", choices=tuple(DTYPES)),
}


@dataclass(frozen=True)
class Params:
    """What a request asks for beside its tensors; None where it left the choice to the service."""

    n: int = 1
    transition: str | None = None
    omega: float | None = None
    k: float | None = None
    hardness: float | None = None
    relative_margin: float | None = None
    absolute_margin: float | None = None
    progress: float | None = None
    returns: tuple[str, ...] | None = None
    seed: int | None = None
    model: str | None = None
    version: str | None = None
    dtype: str = "float32"

    @property
    def torch_dtype(self) -> torch.dtype:
        """Of the answer's floats."""
        return DTYPES[self.dtype]

    @property
    def has_margin(self) -> bool:
        """Whether mu- follows from the positive's score."""
        return (self.relative_margin, self.absolute_margin) != (None, None)

    def rule(self, default: Transition, *, has_threshold: bool) -> Transition:
        """The rule for t*: the checkpoint's, with what the request names in its place.

        Raises:
            OutOfRangeError: see `Transition.override`; or mu- for a rule that has no use for it.
        """
        rule = default.override(self.transition, omega=self.omega, k=self.k, hardness=self.hardness)
        if (has_threshold or self.has_margin) and rule.rule not in NEEDS_THRESHOLD:
            raise OutOfRangeError(
                f"threshold and margins are no parameters of transition rule {rule.rule!r}; they "
                f"belong to {', '.join(sorted(NEEDS_THRESHOLD))}: leave them out or change the rule"
            )
        return rule

    def threshold(
        self, given: Float[Tensor, " B"] | None, positive_score: Float[Tensor, " B"]
    ) -> Float[Tensor, " B"] | None:
        """mu- per row, the smallest of what the request gives; None leaves it to the sampler.

        A negative must pass every filter that `mine_hard_negatives` of sentence-transformers is
        given; so must a generated one here.
        """
        bounds = [] if given is None else [given]
        if self.relative_margin is not None:
            bounds.append((1 - self.relative_margin) * positive_score)
        if self.absolute_margin is not None:
            bounds.append(positive_score - self.absolute_margin)
        return torch.stack(bounds).amin(0) if bounds else None


def fresh_seed() -> int:
    """The seed of a request that names none."""
    return secrets.randbelow(RANDOM_SEEDS)


def from_query(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Name -> value of the query string, each parsed and in range.

    Raises:
        MalformedError: no number where one belongs, or a name given twice.
        OutOfRangeError: an unknown name, or a value outside its range.
    """
    given: dict[str, Any] = {}
    for name, text in pairs:
        spec = _spec(name, "query parameter")
        value = _parsed(name, spec, text)
        if spec.repeated:
            given[name] = (*given.get(name, ()), value)
        elif name in given:
            raise MalformedError(f"query parameter {name} is given twice; give it once")
        else:
            given[name] = value
    return given


def from_json(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Name -> value of a JSON body's scalar fields; null stands for the default.

    Raises:
        MalformedError: a value of another type.
        OutOfRangeError: an unknown name, or a value outside its range.
    """
    given: dict[str, Any] = {}
    for name, value in fields.items():
        spec = _spec(name, "field")
        if value is None:
            continue
        if not spec.repeated:
            given[name] = _checked(name, spec, value)
        elif isinstance(value, list):
            given[name] = tuple(_checked(name, spec, item) for item in value)
        else:
            raise MalformedError(f"{name} must be a list of strings, not {_kind(value)}")
    return given


def combine(query: Mapping[str, Any], body: Mapping[str, Any], max_n: int) -> Params:
    """The parameters of a request from both places.

    Raises:
        MalformedError: a name given in both.
        OutOfRangeError: n above this service's own limit, or an empty `returns`.
    """
    twice = sorted(query.keys() & body.keys())
    if twice:
        raise MalformedError(f"{twice[0]} is given in the query and in the body; give it once")
    params = Params(**query, **body)
    if params.n > max_n:
        raise OutOfRangeError(f"n = {params.n}; it must lie in [1, {max_n}]")
    if params.returns == ():
        raise OutOfRangeError(f"returns is empty; name at least one of {', '.join(RETURNS)}")
    return params


def _spec(name: str, what: str) -> Spec:
    if name not in SPECS:
        tensors = ", ".join((*TENSORS, FEATURES_FIELD))
        raise OutOfRangeError(
            f"unknown {what} {name[:64]!r}; known: {', '.join(SPECS)}; in the body: {tensors}"
        )
    return SPECS[name]


def _parsed(name: str, spec: Spec, text: str) -> Any:
    """A query's text as its kind, checked."""
    if spec.kind == "string":
        return _checked(name, spec, text)
    pattern, convert = (_INTEGER, int) if spec.kind == "integer" else (_NUMBER, float)
    if not pattern.fullmatch(text):
        raise MalformedError(f"{name} = {text[:64]!r}; it must be {_article(spec.kind)}")
    return _checked(name, spec, convert(text))


def _checked(name: str, spec: Spec, value: Any) -> Any:
    """The value, if it is of its kind and in its range."""
    fits = {
        "integer": type(value) is int,
        "number": type(value) in {int, float},
        "string": type(value) is str,
    }[spec.kind]
    if not fits:
        raise MalformedError(f"{name} must be {_article(spec.kind)}, not {_kind(value)}")
    if spec.choices and value not in spec.choices:
        raise OutOfRangeError(f"{name} = {value[:64]!r}; known: {', '.join(spec.choices)}")
    if spec.kind == "string":
        return value
    low = -math.inf if spec.low is None else spec.low
    high = math.inf if spec.high is None else spec.high
    if not (low <= value <= high and math.isfinite(value)):
        raise OutOfRangeError(f"{name} = {value}; it must be finite and lie in [{low}, {high}]")
    return value if spec.kind == "integer" else float(value)


def _article(kind: str) -> str:
    return {"integer": "a whole number", "number": "a number", "string": "a string"}[kind]


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a truth value"}
    return names.get(type(value), "a number" if value is not None else "null")
