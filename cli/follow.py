"""`turnpoint follow`."""

import logging
import signal
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer


def follow(
    registry: Annotated[str, typer.Option(help="where to publish: a folder or fsspec address")],
    model: Annotated[str, typer.Option(help="name to publish under; its stream is followed")],
    redis: Annotated[
        str | None, typer.Option(help="follow the stream there: redis://host:6379/0")
    ] = None,
    snapshot: Annotated[
        str | None,
        typer.Option(
            help="follow embeddings there: .safetensors, .pt2, .pt, or a folder of users and items "
            "as .npy or .parquet; local or an fsspec address"
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="interactions for --snapshot; none: those that the snapshot brings"),
    ] = None,
    passes: Annotated[int, typer.Option(help="over the interactions, for each snapshot")] = 10,
    poll: Annotated[float, typer.Option(help="seconds between two looks at the snapshot")] = 5.0,
    trust_code: Annotated[
        bool,
        typer.Option("--trust-code", help="load .pt2 and .pt, which can run code as they load"),
    ] = False,
    publish_every: Annotated[int, typer.Option(help="steps between publications")] = 500,
    publish_drift: Annotated[
        float, typer.Option(help="drift above which a version is offered earlier, a ratio")
    ] = 0.2,
    keep: Annotated[int, typer.Option(help="versions that stay, with the live one")] = 5,
    dim: Annotated[
        int | None,
        typer.Option(help="d; where nothing is live, publish an untrained model of it at once"),
    ] = None,
    num_steps: Annotated[int, typer.Option(help="T, of a new model, 1 to 1000")] = 50,
    denoiser: Annotated[str, typer.Option(help="film or moment, of a new model")] = "film",
    transition: Annotated[
        str, typer.Option(help="rule for t*, of a new model; see `turnpoint train --help`")
    ] = "score_aware",
    batch_size: Annotated[int, typer.Option(help="rows of a step")] = 1024,
    replays: Annotated[float, typer.Option(help="rows learnt for each fresh one")] = 4.0,
    buffer: Annotated[int, typer.Option(help="rows kept to learn from again")] = 65_536,
    half_life: Annotated[
        int, typer.Option(help="rows after which one is drawn half as often")
    ] = 16_384,
    held_out: Annotated[
        int, typer.Option(help="newest rows, judged on before they are learnt from; 64 or more")
    ] = 2048,
    learning_rate: Annotated[float, typer.Option(help="Adam's")] = 1e-3,
    state: Annotated[
        Path | None,
        typer.Option(help="folder of the state; default: .follow in the model's folder"),
    ] = None,
    save_every: Annotated[float, typer.Option(help="seconds between two saved states")] = 15.0,
    lease: Annotated[
        float, typer.Option(help="seconds after which another worker takes a dead one's place")
    ] = 15.0,
    stop_when_idle: Annotated[
        float | None, typer.Option(help="end once nothing has come for so many seconds")
    ] = None,
    seed: Annotated[int, typer.Option(help="of everything random")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N")] = "cpu",
    threads: Annotated[
        int | None, typer.Option(help="torch threads; default: one per core")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="port to show Prometheus metrics on; 0 is a free one")
    ] = None,
    metrics_host: Annotated[
        str, typer.Option(help="address for them; 0.0.0.0 is every interface")
    ] = "127.0.0.1",
) -> None:
    """Learn from an encoder that is trained elsewhere, and keep its model published."""
    from cli.threads import use_threads
    from core.errors import ConfigError
    from core.registry import Registry
    from core.transition import Transition
    from trainer.distributed import is_main, joined, world
    from trainer.encoders.external import Snapshot
    from trainer.follow import follow as run
    from trainer.following.config import FollowConfig
    from trainer.following.metrics import FollowMetrics
    from trainer.following.shared import SharedSource
    from trainer.following.snapshots import SnapshotSource
    from trainer.following.source import Source
    from trainer.following.stream import StreamSource
    from trainer.readers import read_pairs

    if (redis is None) == (snapshot is None):
        raise ConfigError("give --redis to follow a stream, or --snapshot to follow embeddings")
    if data is not None and snapshot is None:
        raise ConfigError("--data has the interactions of a --snapshot; a stream brings its own")
    folder = state or _default_state(registry, model)
    with ExitStack() as stack:
        own_device = stack.enter_context(joined(device))
        config = FollowConfig(
            num_steps=num_steps,
            denoiser=denoiser,
            transition=Transition(transition),
            batch_size=batch_size,
            replays=replays,
            buffer_rows=buffer,
            half_life_rows=half_life,
            held_out_rows=held_out,
            learning_rate=learning_rate,
            publish_every=publish_every,
            publish_drift=publish_drift,
            keep=keep,
            save_seconds=save_every,
            seed=seed,
            device=own_device,
        )
        use_threads(threads)
        stop = _stopped_by_signals()
        _log_to_stdout(logging.INFO if is_main() else logging.ERROR)
        source: Source
        if redis is not None:
            source = StreamSource(redis, model, lease, stop.wait)
        else:
            source = SnapshotSource(
                Snapshot(snapshot or "", trust_code=trust_code),
                read_pairs(data) if data else None,
                model,
                folder,
                batch=batch_size,
                passes=passes,
                poll_seconds=poll,
                seed=seed,
                sleep=stop.wait,
            )
        if world() > 1:
            source = SharedSource(source, own_device)
        metrics = FollowMetrics()
        if metrics_port is not None and is_main():
            address = stack.enter_context(metrics.served(metrics_host, metrics_port))
            typer.echo(f"metrics on {address}")
        run(
            source,
            Registry(registry),
            model,
            config,
            folder,
            dim=dim,
            metrics=metrics,
            stop=stop,
            idle_seconds=stop_when_idle,
        )


def _default_state(registry: str, model: str) -> Path:
    """Beside the versions, where whoever takes over finds it; a hidden folder is no version."""
    from core.registry import checked_name

    if "://" in registry:
        return Path(".turnpoint") / "follow" / checked_name(model)
    return Path(registry).expanduser() / checked_name(model) / ".follow"


def _stopped_by_signals() -> threading.Event:
    """Set by SIGTERM and SIGINT, so that the state is saved; a second signal ends at once."""
    stop = threading.Event()

    def on_signal(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    return stop


def _log_to_stdout(level: int) -> None:
    logging.basicConfig(
        stream=sys.stdout, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("turnpoint.follow").setLevel(level)
