"""The one command, `turnpoint`. Torch and our own packages load only in the command asked for."""

import os
import signal
import sys

# How long an idle OpenMP thread spins before it sleeps; read when torch loads. With the default,
# 300,000, training was 9 times slower where another process had one of two cores; with no spinning
# at all it was 1.5 times slower on a quiet machine.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import typer

from cli import bench, demo, follow, generate, models, publish, serve, train

app = typer.Typer(
    name="turnpoint",
    help="Negative sampling as a service: train, publish, serve, ask.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("train")(train.train)
app.command("follow")(follow.follow)
app.command("serve")(serve.serve)
app.add_typer(models.app, name="models")
app.command("publish")(publish.publish)
app.command("generate")(generate.generate)
app.command("bench")(bench.bench)
app.command("demo")(demo.demo)


def main() -> None:
    """Run the command; an error raised on purpose is one readable line and exit code 2."""
    from core.errors import TurnpointError

    signal.signal(signal.SIGTERM, _stop)
    try:
        app()
    except TurnpointError as error:
        print(f"turnpoint: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("turnpoint: interrupted", file=sys.stderr)
        sys.exit(130)


def _stop(number: int, _: object) -> None:
    """End as a shell reports that signal; `serve` has a handler of its own, which drains.

    Process 1 of a container, which is what we are there, ignores a signal that it does not handle.
    """
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
