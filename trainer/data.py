"""Interactions: who took what, split into what is learnt from, chosen by and judged on."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64, Shaped

from core.errors import ConfigError, DataError
from trainer import synthetic
from trainer.features import read_features
from trainer.lines import Pairs
from trainer.readers import read_pairs
from trainer.split import SPLITS, split_up

HELD_OUT = re.compile(r"(?:.*\.)?((?:valid|test)[^.]*)")  # of a file name without its suffix
TRAIN = re.compile(r"(?:.*\.)?train")


@dataclass(frozen=True, eq=False)
class Interactions:
    """A data set with contiguous ids; no pair is in two of `train`, `valid` and `test`.

    Attributes:
        name: what reports call it.
        num_users: U.
        num_items: I.
        train: int64 [N, 2], pairs (user, item), by user and in time order within a user.
        valid: the same; what choices are made on.
        test: the same; read once.
        user_labels: str [U], the file's own id of each user.
        item_labels: str [I], the file's own id of each item.
        extra_tests: further held-out files of a directory, by name; not in train or valid.
        features: float32 [I, f] per modality, by name; f is each modality's own.

    Raises:
        DataError: pairs that do not ascend by user, an id out of range, or features that do not
            have a row for each item.
    """

    name: str
    num_users: int
    num_items: int
    train: Int64[np.ndarray, "train 2"]
    valid: Int64[np.ndarray, "valid 2"]
    test: Int64[np.ndarray, "test 2"]
    user_labels: Shaped[np.ndarray, "U"]
    item_labels: Shaped[np.ndarray, "I"]
    extra_tests: dict[str, Int64[np.ndarray, "_ 2"]] = field(default_factory=dict)
    features: dict[str, Float32[np.ndarray, "_ _"]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        splits = {"train": self.train, "valid": self.valid, "test": self.test, **self.extra_tests}
        for name, pairs in splits.items():
            if np.any(np.diff(pairs[:, 0]) < 0):
                raise DataError(
                    f"{self.name}, {name}: pairs must ascend by user; sort them, stably"
                )
            if np.any((pairs < 0) | (pairs >= [self.num_users, self.num_items])):
                raise DataError(
                    f"{self.name}, {name}: users must be in [0, {self.num_users}) and items in "
                    f"[0, {self.num_items})"
                )
        for name, table in self.features.items():
            if len(table) != self.num_items:
                raise DataError(
                    f"{self.name}, {name}: {len(table)} rows of features do not fit "
                    f"{self.num_items} items; give each item a row"
                )

    @property
    def popularity(self) -> Int64[np.ndarray, "I"]:
        """int64 [I], how many train pairs each item is in."""
        return np.bincount(self.train[:, 1], minlength=self.num_items)

    def known_features(self, wanted_by: str) -> dict[str, Float32[np.ndarray, "_ _"]]:
        """`features`, for what cannot do without.

        Raises:
            ConfigError: there are none.
        """
        if not self.features:
            raise ConfigError(
                f"{wanted_by} needs features of items, and {self.name} has none: give a directory "
                "with a NumPy file [items, f] for each modality beside its interactions"
            )
        return self.features

    def describe(self) -> str:
        """One line for people: sizes, density, the share of the most popular tenth, features."""
        sizes = [len(pairs) for pairs in (self.train, self.valid, self.test)]
        pairs = np.concatenate([self.train, self.valid, self.test])
        popularity = np.sort(np.bincount(pairs[:, 1], minlength=self.num_items))[::-1]
        head = popularity[: max(1, self.num_items // 10)].sum() / len(pairs)
        known = ", ".join(f"{name} ({table.shape[1]})" for name, table in self.features.items())
        return (
            f"{self.name}: {self.num_users:,} users, {self.num_items:,} items, "
            f"{len(pairs):,} interactions ({sizes[0]:,} train, {sizes[1]:,} valid, "
            f"{sizes[2]:,} test), density {len(pairs) / self.num_users / self.num_items:.3%}, "
            f"the most popular tenth of items has {head:.0%}"
            + (f"; features of items: {known}" if known else "")
        )


def load(
    path: Path | None,
    *,
    seed: int = 0,
    split: str = "random",
    test_fraction: float = 0.2,
    valid_fraction: float = 0.05,
) -> Interactions:
    """Reads a data set in any of the forms of `readers`, or generates one.

    A single file is split per user: at random, or with `leave-one-out` the last pair of a user of 3
    or more is test and the one before it validation. A directory has `train`, `test*` and perhaps
    `valid*` files; of several the first by name counts, and the others are `extra_tests`. Its other
    `.npy` files are `features`; see `features.read_features`.
    Without a validation file, validation pairs come out of train. A pair met twice counts once:
    the first time in a file; in train before valid before test.

    Args:
        path: a file, a directory, or None for `synthetic.generate`.
        seed: seeds the split and the generated data.
        split: one of `trainer.split.SPLITS`; of what is not split yet.
        test_fraction: of each user's pairs, in a random split, in [0, 1); see `split_off_test`.
        valid_fraction: of the train pairs, in a random split, in [0, 1); see `split_off_valid`.

    Returns:
        the interactions; their ids follow the labels, in numerical order where all are whole
        numbers and in alphabetical order elsewhere.

    Raises:
        DataError: a file is missing, empty or cannot be read; the message says where.
        ConfigError: there is no such split, or a fraction is out of range.
    """
    if split not in SPLITS:
        raise ConfigError(f"split = {split!r}; known: {', '.join(SPLITS)}")
    if not (0 <= test_fraction < 1 and 0 <= valid_fraction < 1):
        raise ConfigError(
            f"fractions must be in [0, 1), not {test_fraction} for test, {valid_fraction} for valid"
        )
    if path is None:
        name, parts = "synthetic", {"all": _generated(seed)}
    elif path.is_dir():
        name = path.resolve().name
        parts = {part: read_pairs(file) for part, file in _files(path).items()}
    else:
        name, parts = path.stem, {"all": read_pairs(path)}
    user_ids = _number(users for users, _ in parts.values())
    item_ids = _number(items for _, items in parts.values())
    arrays = {
        part: np.array(
            [[user_ids[user] for user in users], [item_ids[item] for item in items]], dtype=np.int64
        ).T
        for part, (users, items) in parts.items()
    }
    rng = np.random.default_rng(seed)
    fractions = (test_fraction, valid_fraction) if split == "random" else None
    splits = split_up(arrays, len(item_ids), fractions, rng)
    test = next(part for part in splits if part.startswith("test"))
    for part, pairs in splits.items():
        if part not in {"train", "valid"} and not len(pairs):
            raise DataError(
                f"{name}, {part}: nothing to test on; users need at least 3 interactions, and test "
                "pairs must not be in train"
            )
    item_labels = np.array(list(item_ids))
    return Interactions(
        name=name,
        num_users=len(user_ids),
        num_items=len(item_ids),
        train=splits.pop("train"),
        valid=splits.pop("valid"),
        test=splits.pop(test),
        user_labels=np.array(list(user_ids)),
        item_labels=item_labels,
        extra_tests=splits,
        features=_features(path, seed, item_labels),
    )


def _generated(seed: int) -> Pairs:
    users, items = synthetic.generate(seed=seed).T.astype(str).tolist()
    return users, items


def _features(path: Path | None, seed: int, item_labels: np.ndarray) -> dict[str, np.ndarray]:
    """What a directory or the generated data tell of items; a single file tells nothing."""
    if path is None:
        tables = synthetic.features(seed=seed)
        return {name: table[item_labels.astype(np.int64)] for name, table in tables.items()}
    if not path.is_dir():
        return {}
    return read_features(sorted(set(path.glob("*.npy")) - set(_files(path).values())), item_labels)


def _files(directory: Path) -> dict[str, Path]:
    """The files of a directory that are `train` and held-out sets, by name."""
    files: dict[str, Path] = {}
    for file in sorted(directory.iterdir()):
        match = TRAIN.fullmatch(file.stem) or HELD_OUT.fullmatch(file.stem)
        if match is None or not file.is_file():
            continue
        name = match[1] if match.re is HELD_OUT else "train"
        if name in files:
            raise DataError(f"{directory}: both {files[name].name} and {file.name}; keep one")
        files[name] = file
    for role in ("train", "test"):
        if not any(name.startswith(role) for name in files):
            found = ", ".join(sorted(file.name for file in directory.iterdir()))[:200]
            raise DataError(f"{directory}: expected a file {role}.txt or the like, found {found}")
    return files


def _number(columns: Iterable[list[str]]) -> dict[str, int]:
    """Contiguous ids in the labels' own order."""
    labels = {label for column in columns for label in column}
    if all(label.isascii() and label.isdigit() for label in labels):
        ordered = sorted(labels, key=lambda label: (int(label), label))
    else:
        ordered = sorted(labels)
    return {label: number for number, label in enumerate(ordered)}
