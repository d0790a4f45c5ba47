"""`turnpoint follow`: what cannot work is said. Its work is tested with the trainer."""

import pytest
from typer.testing import CliRunner

from cli.main import app
from core.errors import ConfigError


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "give --redis to follow a stream, or --snapshot"),
        (("--redis", "redis://h", "--snapshot", "s"), "give --redis to follow a stream"),
        (("--redis", "redis://h", "--data", "s"), "--data has the interactions of a --snapshot"),
        (("--redis", "redis://h", "--keep", "0"), "keep = 0"),
        (("--redis", "redis://h", "--held-out", "3"), "held_out_rows = 3"),
        (("--redis", "redis://h", "--buffer", "3"), "buffer_rows = 3"),
        (("--redis", "redis://h", "--replays", "0"), "replays = 0"),
        (("--redis", "redis://h", "--model", "../m"), "no model or version name"),
    ],
)
def test_what_cannot_work_is_said(arguments, told, tmp_path):
    given = ["follow", "--registry", str(tmp_path), "--model", "m", *arguments]
    result = CliRunner().invoke(app, given)
    assert isinstance(result.exception, ConfigError)
    assert told in str(result.exception)
    assert not list(tmp_path.iterdir())
