"""Nothing that is read can run code: no pickle, no eval, in any of our packages."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("core", "service", "trainer", "cli", "client/turnpoint_client")
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CALLS = {"eval", "exec", "compile", "__import__"}
# The one file that loads what can run code, where its caller said --trust-code (docs/security.md).
TRUSTED = {Path("trainer/encoders/external/exported.py"): ["torch.export.load", "torch.jit.load"]}
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def dangers(source: str) -> list[str]:
    """What in a source may run what it reads."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found += [n.name for n in names if n.name.partition(".")[0] in MODULES]
            case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in MODULES:
                found.append(module)
            case ast.Call(func=ast.Name(id=name)) if name in CALLS:
                found.append(name)
            case ast.Call(func=ast.Attribute() as called, keywords=given):
                options = {one.arg: ast.unparse(one.value) for one in given}
                call = ast.unparse(called)
                safe = {
                    "torch.load": options.get("weights_only") == "True",
                    "np.load": options.get("allow_pickle", "False") == "False",
                    "numpy.load": options.get("allow_pickle", "False") == "False",
                    "yaml.load": False,
                    "torch.save": False,
                    "torch.export.load": False,
                    "torch.jit.load": False,
                    "pd.read_pickle": False,
                }
                found += [] if safe.get(call, True) else [call]
            case _:
                pass
    return sorted(found)


def test_all_packages_are_looked_at() -> None:
    assert len(SOURCES) > 60
    for package in PACKAGES:
        assert any(ROOT / package in path.parents for path in SOURCES), package


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_is_read_can_run_code(path: Path) -> None:
    assert dangers(path.read_text()) == TRUSTED.get(path.relative_to(ROOT), [])


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import os, pickle as p",
        "from pickle import loads",
        "import joblib.numpy_pickle",
        "import torch; torch.load('x')",
        "import torch; torch.load('x', weights_only=False)",
        "import torch; torch.export.load('x')",
        "import torch; torch.jit.load('x')",
        "import numpy as np; np.load('x', allow_pickle=True)",
        "def f():\n    return eval('1')",
    ],
)
def test_the_test_would_see_it(source: str) -> None:
    assert dangers(source)


def test_what_is_safe_passes() -> None:
    assert dangers("import torch; torch.load('x', weights_only=True); model.eval()") == []
