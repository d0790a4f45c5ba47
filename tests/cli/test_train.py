"""`turnpoint train` with every encoder, plainly and with ADAR, in this process."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from typer.testing import CliRunner

from cli.main import app
from trainer import synthetic
from trainer.defaults import DEFAULTS, config_for
from trainer.split import split_off_last

USERS, ITEMS = 60, 50


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Lines in time order, as `synthetic` draws them."""
    pairs = synthetic.generate(num_users=USERS, num_items=ITEMS, mean_items=8.0, seed=0)
    lines = [" ".join(map(str, [user, *pairs[pairs[:, 0] == user, 1]])) for user in range(USERS)]
    path = tmp_path_factory.mktemp("data") / "small.txt"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The same with its own test sets, and features of every item."""
    pairs = synthetic.generate(num_users=USERS, num_items=ITEMS, mean_items=8.0, seed=0)
    train, test = split_off_last(pairs, 3)
    path = tmp_path_factory.mktemp("data")
    for name, part in {"train": train, "test_iid": test, "test_ood": test[::2]}.items():
        np.save(path / f"{name}.npy", part)
    tables = synthetic.features(num_users=USERS, num_items=ITEMS, seed=0)
    for name, table in tables.items():
        np.save(path / f"{name}.npy", table.astype(np.float16))
    return path


@pytest.mark.parametrize("encoder", DEFAULTS)
@pytest.mark.parametrize("method", ["none", "adar"])
def test_every_encoder_trains_reports_and_leaves_its_embeddings(
    data, folder, tmp_path, encoder, method
):
    looks = encoder in {"vbpr", "mmlightgcn"}
    arguments = {
        "--data": folder if looks else data,
        "--encoder": encoder,
        "--method": method,
        "--negatives": "dns",
        "--candidates": 4,
        "--epochs": 2,
        "--eval-every": 1,
        "--dim": 8,
        "--threads": 1,
        "--report": tmp_path / "report.json",
        "--embeddings": tmp_path / "tables.safetensors",
        "--resume": tmp_path / "state",
    }
    if method != "none":
        arguments |= {"--registry": tmp_path / "registry", "--model": "small"}
    words = [str(word) for pair in arguments.items() for word in pair]
    done = CliRunner().invoke(app, ["train", *words])
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "report.json").read_text())
    given = {"method": method, "negatives": "dns", "candidates": 4, "epochs": 2, "dim": 8}
    expected = config_for(encoder, eval_every=1, **given).as_dict()
    assert report["config"] == json.loads(json.dumps(expected))
    assert 0 <= report["test"]["recall@20"] <= 1
    assert list(report["extra_tests"]) == (["test_ood"] if looks else [])
    assert done.output.count("test_ood") == looks
    assert (report["transition"] is None) == (method == "none")
    assert len(report["versions"]["published"]) == (method == "adar")
    tables = safetensors.numpy.load_file(tmp_path / "tables.safetensors")
    assert tables["users"].shape == (USERS, 8)
    assert tables["items"].shape[1] == 8
    if config_for(encoder).split == "leave-one-out":
        assert len(tables["test"]) == len(tables["valid"]) == USERS


METHODS = {
    "dmns": {"--diffusion-steps": 2},
    "cnsdiff": {"--cnsdiff-variant": "described", "--cnsdiff-contrast": 0.1},
    "gdnsm": {"--gdnsm-start": 1, "--gdnsm-denoiser": "linear", "--ddim-steps": 4},
    "catalogue": {"--draws": 2, "--candidates": 3},
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_publishes_and_generates(folder, tmp_path, method):
    registry, features = tmp_path / "registry", ("image", "audio")
    arguments = {
        "--data": folder,
        "--method": method,
        "--epochs": 2,
        "--eval-every": 1,
        "--dim": 8,
        "--threads": 1,
        "--report": tmp_path / "report.json",
        "--registry": registry,
        "--model": "small",
        **METHODS[method],
    }
    words = [str(word) for pair in arguments.items() for word in pair]
    done = CliRunner().invoke(app, ["train", *words])
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "report.json").read_text())
    for flag, value in METHODS[method].items():
        assert report["config"][flag.removeprefix("--").replace("-", "_")] == value
    assert any(name.startswith("cosine") for name in report["history"][-1])
    rng = np.random.default_rng(0)
    pairs = {name: rng.normal(size=(5, 8)).astype(np.float32) for name in ("users", "positives")}
    if method == "gdnsm":
        widths = {name: np.load(folder / f"{name}.npy").shape[1] for name in features}
        pairs |= {
            f"item_features.{name}": rng.normal(size=(5, width)).astype(np.float32)
            for name, width in widths.items()
        }
    safetensors.numpy.save_file(pairs, tmp_path / "pairs.safetensors")
    places = ["--registry", str(registry), "--model", "small"]
    files = ["--input", str(tmp_path / "pairs.safetensors"), "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["generate", *places, *files, "--n", "3"])
    assert done.exit_code == 0, done.output
    drawn = safetensors.numpy.load_file(tmp_path / "out")
    assert drawn["negatives"].shape == (5, 3, 8)
    assert ("weights" in drawn) == (method in {"dmns", "gdnsm"})
    assert ("items" in drawn) == (method == "catalogue")
    done = CliRunner().invoke(app, ["generate", *places, *files, "--transition", "fixed"])
    assert done.exit_code != 0
