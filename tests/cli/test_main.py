"""The command as people run it: a process, its output and its exit code."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from core.checkpoint import MANIFEST_FILE, WEIGHTS_FILE, unpack
from core.registry import Registry
from tests.cli.conftest import ENVIRONMENT, ROOT, turnpoint

COMMANDS = ("train", "serve", "models", "publish", "generate", "bench", "demo")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with a registry, a report and embeddings, from two epochs on generated data."""
    folder = tmp_path_factory.mktemp("trained")
    told = turnpoint(
        *("train", "--encoder", "mf", "--method", "adar", "--epochs", 2, "--eval-every", 1),
        *("--dim", 8, "--num-steps", 10, "--transition", "exact", "--registry", "registry"),
        *("--model", "demo", "--report", "report.json", "--embeddings", "tables.safetensors"),
        *("--resume", "state", "--threads", 1, "--metrics-port", 0),
        cwd=folder,
    )
    assert "2,000 users" in told.stdout
    assert "epoch 2/2" in told.stdout
    assert "metrics on http://127.0.0.1:" in told.stdout
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_option_and_imports_nothing_heavy(command, tmp_path):
    told = turnpoint(command, "--help", cwd=tmp_path).stdout
    assert "Usage:" in told
    lines = [line for line in told.splitlines() if "--" in line]
    assert lines


def test_help_does_not_load_torch(tmp_path):
    code = (
        "import sys; sys.argv = ['turnpoint', '--help']\n"
        "from cli.main import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'service', 'trainer', 'fastapi'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_train_publishes_and_reports(trained):
    report = json.loads((trained / "report.json").read_text())
    assert report["config"]["transition"]["rule"] == "exact"
    registry = Registry(trained / "registry")
    assert registry.versions("demo") == report["versions"]["published"]
    sampler, _ = unpack(registry.read("demo", registry.live("demo")))
    assert sampler.transition.rule == "exact"
    assert sampler.dim == 8
    assert (trained / "state" / "training.safetensors").exists()


def test_models_lists_shows_and_pins(trained):
    registry = Registry(trained / "registry")
    first = registry.live("demo")
    second = turnpoint(
        *("publish", trained / "registry" / "demo" / first, "--registry", "other"),
        *("--model", "copy"),
        cwd=trained,
    ).stdout
    assert f"copy: {first} is live" in second
    assert turnpoint("models", "--registry", "other", cwd=trained).stdout.split() == [
        *("copy", "live", first, "1", "version(s)")
    ]
    shown = json.loads(
        turnpoint("models", "--registry", "other", "show", "copy", cwd=trained).stdout
    )
    assert shown["version"] == first
    assert shown["dim"] == 8
    told = turnpoint("models", "--registry", "other", "live", "copy", first, cwd=trained).stdout
    assert told.startswith(f"copy: {first} is live (was {first})")


def test_items_of_any_encoder_become_a_catalogue(trained):
    command = ("publish", "--registry", "catalogues", "--model", "items", "--candidates", 3)
    told = turnpoint(*command, "--items", "tables.safetensors", cwd=trained).stdout
    registry = Registry(trained / "catalogues")
    assert f"items: {registry.live('items')} is live" in told
    sampler, _ = unpack(registry.read("items", registry.live("items")))
    items = safetensors.numpy.load_file(trained / "tables.safetensors")["items"]
    assert np.array_equal(sampler.items.numpy(), items)
    assert sampler.config.candidates == 3


def test_generate_gives_the_laws_draws(trained):
    tables = safetensors.numpy.load_file(trained / "tables.safetensors")
    pairs = {
        "users": tables["users"][:3000].copy(),
        "positives": tables["items"][:1].repeat(2000, 0),
    }
    safetensors.numpy.save_file(pairs, trained / "pairs.safetensors")
    arguments = (
        *("generate", "--registry", "registry", "--model", "demo", "--n", 3),
        *("--input", "pairs.safetensors", "--output", "out.safetensors"),
    )
    turnpoint(*arguments, "--seed", 1, cwd=trained)
    first = safetensors.numpy.load_file(trained / "out.safetensors")
    assert first["negatives"].shape == (2000, 3, 8)
    assert first["transition"].shape == (2000,)
    assert np.isfinite(first["negatives"]).all()
    turnpoint(*arguments, "--seed", 1, cwd=trained)
    again = safetensors.numpy.load_file(trained / "out.safetensors")
    assert np.array_equal(first["negatives"], again["negatives"])
    turnpoint(*arguments, "--seed", 2, cwd=trained)
    other = safetensors.numpy.load_file(trained / "out.safetensors")
    assert not np.array_equal(first["negatives"], other["negatives"])
    assert np.array_equal(first["transition"], other["transition"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--data", "absent.txt"), "absent.txt"),
        (("train", "--encoder", "bert"), "no encoder is called 'bert'"),
        (("train", "--method", "gan"), "method = 'gan'; known: none, adar"),
        (("train", "--transition", "soon"), "transition = 'soon'; known rules"),
        (("train", "--registry", "r"), "nothing to publish with --method none"),
        (("models", "--registry", "none", "show", "m"), "model 'm' has no live version"),
        (("publish", "nowhere", "--registry", "r", "--model", "m"), "is no checkpoint folder"),
        (("publish", "--registry", "r", "--model", "m"), "name one of the two"),
        (("publish", "--items", "absent", "--registry", "r", "--model", "m"), "no tensor 'items'"),
        (("serve", "--port", "99999"), "TURNPOINT_SERVER__PORT"),
    ],
)
def test_errors_are_one_readable_line(arguments, message, tmp_path):
    done = turnpoint(*arguments, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("turnpoint: ")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_broken_data_line_is_named(tmp_path):
    (tmp_path / "data.txt").write_text("1 2 3\n2 x 4\n")
    done = turnpoint("train", "--data", "data.txt", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "line 2" in done.stderr
    assert "2 x 4" in done.stderr


def test_generate_refuses_bad_input_by_name(trained):
    zeros = np.zeros((4, 8), "f4")
    bad = zeros.copy()
    bad[2, 3] = np.nan
    for pairs, message in (
        ({"users": zeros}, "has no tensor 'positives'"),
        ({"users": zeros, "positives": zeros[:, :7].copy()}, "positives [4, 7] must be [4, 8]"),
        ({"users": zeros, "positives": bad}, "positives is not finite in row 2"),
    ):
        safetensors.numpy.save_file(pairs, trained / "bad.safetensors")
        done = turnpoint(
            *("generate", "--registry", "registry", "--model", "demo"),
            *("--input", "bad.safetensors", "--output", "bad.out"),
            cwd=trained,
            check=False,
        )
        assert done.returncode == 2
        assert message in done.stderr


def test_print_config_shows_every_setting(tmp_path):
    told = turnpoint("serve", "--port", 1234, "--print-config", cwd=tmp_path).stdout
    assert "TURNPOINT_SERVER__PORT=1234" in told.splitlines()


def test_a_corrupt_checkpoint_is_not_published(trained, tmp_path):
    registry = Registry(trained / "registry")
    files = registry.read("demo", registry.live("demo")).files
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / WEIGHTS_FILE).write_bytes(files[WEIGHTS_FILE][:-1])
    (folder / MANIFEST_FILE).write_bytes(files[MANIFEST_FILE])
    done = turnpoint(
        *("publish", folder, "--registry", "r", "--model", "m"), cwd=tmp_path, check=False
    )
    assert done.returncode == 2
    assert "truncated" in done.stderr
    assert not (tmp_path / "r").exists()


def test_sigterm_ends_training_in_order(tmp_path):
    """And is not left to the default, which process 1 of a container does not have."""
    command = [sys.executable, "-m", "cli.main", "train", "--encoder", "mf", "--method", "adar"]
    command += ["--epochs", "100000", "--patience", "100000", "--eval-every", "1", "--dim", "8"]
    command += ["--registry", "registry", "--model", "demo", "--publish-every", "1"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    ) as run:
        try:
            while not run.stdout.readline().startswith("epoch 2/"):
                assert run.poll() is None
            run.send_signal(signal.SIGTERM)
            run.stdout.read()
            assert run.wait(timeout=30) == 128 + signal.SIGTERM
        finally:
            run.kill()
    registry = Registry(tmp_path / "registry")
    unpack(registry.read("demo", registry.live("demo")))
    assert not list((tmp_path / "registry" / "demo").glob(".*"))
