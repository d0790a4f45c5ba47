"""`turnpoint demo`: the whole idea once, in a few minutes: train, publish, serve, ask, show."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.bench import Format

if TYPE_CHECKING:
    import numpy as np
    from turnpoint_client import Client

HOME = Path(".turnpoint")
REGISTRY = HOME / "registry"
MODEL = "demo"
EPOCHS = 15
ROWS, N = 1024, 8
CALLS = 10
START_SECONDS = 60
WIDTH = 100  # of the tables, where there is no terminal
FORMATS: dict[Format, tuple[str, str]] = {
    "octet-stream": ("application/octet-stream", "pairs.f32"),
    "safetensors": ("application/x-safetensors", "pairs.safetensors"),
    "json": ("application/json", "pairs.json"),
}
RULES = ("score_aware", "calibrated", "theorem", "exact", "random", "fixed", "mixed")
BINS = 25
BARS = "▁▂▃▄▅▆▇█"


def demo(
    data: Annotated[
        Path | None, typer.Option(help="file or folder of interactions; none: generated data")
    ] = None,
) -> None:
    """Train LightGCN with ADAR for a few epochs, publish it, serve it, and ask it for negatives.

    Leaves its registry in .turnpoint/registry (model `demo`) and sample requests beside it.
    """
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    console.rule("1. train LightGCN + ADAR, and publish")
    users, positives, sampled = _train(data, console)
    _write_requests(users, positives)
    console.rule("2. serve")
    with _service() as url:
        console.print(f"serving {REGISTRY} on {url}")
        console.rule("3. ask, through the client and through curl")
        _ask(console, url, users, positives, sampled)
    console.rule("done")
    console.print(
        "next: [bold]make serve[/bold], then\n"
        f"  curl --data-binary @{HOME}/pairs.f32 -H 'Content-Type: application/octet-stream' "
        f"'localhost:8000/negatives?n={N}' -o {HOME}/negatives.f32\n"
        "and http://localhost:8000/docs",
        highlight=False,
        soft_wrap=True,
    )


def _train(data: Path | None, console: Any) -> tuple["np.ndarray", "np.ndarray", "np.ndarray"]:
    """Users, positives and uniformly sampled negatives of `ROWS` training pairs, [ROWS, d] each."""
    import torch

    from cli.progress import TrainingProgress, show_report
    from cli.threads import use_threads
    from trainer.config import TrainConfig
    from trainer.data import load
    from trainer.pipeline import Outputs, train
    from trainer.sampling import UniformNegatives

    use_threads(None)
    config = TrainConfig(method="adar", epochs=EPOCHS, eval_every=3)
    outputs = Outputs(
        registry=str(REGISTRY), model=MODEL, embeddings=HOME / "embeddings.safetensors"
    )
    interactions = load(data, seed=config.seed)
    console.print(interactions.describe(), highlight=False)
    with TrainingProgress(config) as progress:
        result = train(interactions, config, outputs, progress.watcher)
    show_report(result.report)

    generator = torch.Generator().manual_seed(0)
    train_pairs = torch.from_numpy(interactions.train)
    chosen = torch.randint(len(train_pairs), (ROWS,), generator=generator)
    user_ids, item_ids = train_pairs[chosen].unbind(1)
    sizes = (interactions.num_users, interactions.num_items)
    negative_ids = UniformNegatives(interactions.train, *sizes).sample(user_ids, generator)
    users, items = result.run.encoder.tables()
    return users[user_ids].numpy(), items[item_ids].numpy(), items[negative_ids].numpy()


def _write_requests(users: "np.ndarray", positives: "np.ndarray") -> None:
    """The same request in the three formats, for curl.

    Octet-stream and safetensors whole; in JSON the first four rows, as plain numbers that a person
    can read.
    """
    import json

    from safetensors.numpy import save_file

    (HOME / "pairs.f32").write_bytes(users.tobytes() + positives.tobytes())
    save_file({"users": users, "positives": positives}, HOME / "pairs.safetensors")
    few = {"users": users[:4].tolist(), "positives": positives[:4].tolist(), "n": N}
    (HOME / "pairs.json").write_text(json.dumps(few))


@contextmanager
def _service() -> Iterator[str]:
    """A `turnpoint serve` on a free port of this machine, stopped by SIGTERM."""
    command = [sys.executable, "-m", "cli.main", "serve", "--registry", str(REGISTRY)]
    command += ["--model", MODEL, "--port", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            told = process.stdout.readline()
            if "http" not in told:
                raise SystemExit(f"the service did not start (exit code {process.wait()})")
            url = told.split()[-1]
            _await_ready(url)
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            if process.wait(timeout=START_SECONDS) != 0:
                raise SystemExit(f"the service ended with exit code {process.returncode}")


def _await_ready(url: str) -> None:
    from turnpoint_client import Client

    end = time.monotonic() + START_SECONDS
    with Client(url) as client:
        while not client.ready():
            if time.monotonic() > end:
                raise SystemExit(f"the service was not ready after {START_SECONDS} s")
            time.sleep(0.1)


def _ask(console: Any, url: str, users: Any, positives: Any, sampled: Any) -> None:
    from turnpoint_client import Client

    with Client(url) as client:
        console.print(_formats_table(client, url, users, positives))
        console.print(_rules_table(client, users, positives, sampled))


def _formats_table(client: "Client", url: str, users: Any, positives: Any) -> Any:
    import numpy as np
    from rich.table import Table

    table = Table(title=f"{ROWS} rows x {users.shape[1]}, n = {N}; medians of {CALLS} calls")
    table.add_column("format", no_wrap=True)
    table.add_column("negatives", no_wrap=True)
    table.add_column("client ms", justify="right")
    table.add_column("sampling ms", justify="right")
    table.add_column("curl", no_wrap=True)
    for name, (content_type, file) in FORMATS.items():
        times, sampling = [], []
        for _ in range(CALLS):
            begin = time.perf_counter()
            answer = client.negatives(users, positives, n=N, format=name, seed=1)
            times.append(1e3 * (time.perf_counter() - begin))
            sampling.append(answer.timings.get("sample", float("nan")))
        shape = " x ".join(map(str, answer.negatives.shape))
        path = "/negatives" if name == "json" else f"/negatives?n={N}"
        curled = _curl(url + path, content_type, HOME / file)
        figures = (f"{np.median(times):.1f}", f"{np.median(sampling):.1f}")
        table.add_row(name, f"{shape} {answer.negatives.dtype}", *figures, curled)
    return table


def _curl(url: str, content_type: str, body: Path) -> str:
    """Status, bytes and milliseconds of one POST by curl; says so where there is no curl."""
    curl = shutil.which("curl")
    if curl is None:
        return "curl is not installed"
    command = [curl, "--silent", "--show-error", "--data-binary", f"@{body}"]
    command += ["--header", f"Content-Type: {content_type}", "--output", os.devnull]
    command += ["--write-out", "%{http_code} %{size_download} %{time_total}", url]
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if told.returncode:
        raise SystemExit(f"curl failed: {told.stderr.strip()}")
    status, size, seconds = told.stdout.split()
    if status != "200":
        raise SystemExit(f"curl was answered with status {status} for {body}")
    return f"{status}, {int(size):,} bytes, {1e3 * float(seconds):.1f} ms"


def _rules_table(client: "Client", users: Any, positives: Any, sampled: Any) -> Any:
    """For every rule, where t* falls and how hard the negatives are beside sampled ones."""
    import numpy as np
    from rich.table import Table

    positive = (users * positives).sum(-1)
    table = Table(
        title="the rules for t*",
        caption=f"mean score of the positives {positive.mean():.3f}, "
        f"of sampled negatives {(users * sampled).sum(-1).mean():.3f}",
    )
    table.add_column("transition", no_wrap=True)
    (steps,) = {model.num_steps or 1 for model in client.models() if model.name == MODEL}
    table.add_column(f"t* from 0 to {steps}", no_wrap=True, min_width=BINS)
    for name in ("mean t*", "mean score", "above their positive"):
        table.add_column(name, justify="right")
    for rule in RULES:
        answer = client.negatives(
            users,
            positives,
            n=N,
            transition=rule,
            seed=1,
            returns=("negatives", "transition", "scores"),
        )
        assert answer.transition is not None
        assert answer.scores is not None
        counts, _ = np.histogram(answer.transition, bins=BINS, range=(0, steps))
        harder = (answer.scores > positive[:, None]).mean()
        table.add_row(
            rule,
            sparkline(counts),
            f"{answer.transition.mean():.1f}",
            f"{answer.scores.mean():.3f}",
            f"{harder:.0%}",
        )
    return table


def sparkline(counts: "np.ndarray") -> str:
    """Counts as bars; a blank is zero, and whatever is above zero shows."""
    top = max(int(counts.max()), 1)
    last = len(BARS) - 1
    return "".join(" " if c == 0 else BARS[round(last * int(c) / top)] for c in counts)
