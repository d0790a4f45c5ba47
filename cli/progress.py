"""What people see of a training run: a live bar in a terminal, one line a validation elsewhere."""

from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from trainer.config import TrainConfig
from trainer.cotrain import Tick, Watcher
from trainer.publish import PUBLISHED
from trainer.run import Run

REFRESH_STEPS = 5  # looking at a tensor waits for the device, so not at every step


class TrainingProgress:
    """A context manager whose `watcher` goes to the training loop."""

    def __init__(self, config: TrainConfig) -> None:
        self.console = Console()
        self.config = config
        self.valid = ""
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=5),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task = self.progress.add_task("", total=None, epoch=f"0/{config.epochs}", figures="")
        self.watcher = Watcher(self._on_step, self._on_epoch, self._on_publish)

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def _on_step(self, tick: Tick) -> None:
        if self.progress.disable or tick.step % REFRESH_STEPS:
            return
        figures = [f"{name} {float(value):.3f}" for name, value in tick.losses.items()]
        if tick.transition is not None:
            figures.append(f"t* {float(tick.transition.double().mean()):.1f}")
        self.progress.update(
            self.task,
            total=tick.steps,
            completed=tick.step + 1,
            epoch=f"{tick.epoch + 1}/{self.config.epochs}",
            figures=" ".join(["loss", *figures, self.valid]),
        )

    def _on_epoch(self, run: Run, seconds: float, metrics: dict[str, float] | None) -> None:
        if metrics is None:
            return
        name = self.config.metric
        self.valid = f"{name} {metrics[name]:.4f}"
        best = " (best)" if run.best_epoch == run.epoch else ""
        self.console.print(
            f"epoch {run.epoch}/{self.config.epochs}  {seconds:.1f} s  valid {self.valid}{best}",
            highlight=False,
        )

    def _on_publish(self, result: str, told: str) -> None:
        if result != PUBLISHED:  # the report lists the others
            self.console.print(f"not published, {result}: {told}", highlight=False, markup=False)


def show_report(report: dict[str, Any]) -> None:
    """The figures of a report as a table."""
    table = Table(title=f"best epoch {report['best_epoch']} of {report['epochs']}")
    table.add_column("split")
    for name in report["test"]:
        table.add_column(name, justify="right")
    splits = {"valid": report["valid"], "test": report["test"], **report["extra_tests"]}
    for split, figures in splits.items():
        table.add_row(split, *(f"{value:.4f}" for value in figures.values()))
    console = Console()
    console.print(table)
    if report["seconds_per_epoch"] is not None:
        console.print(f"{report['seconds_per_epoch']:.2f} s per epoch (median, training alone)")
    if report["transition"] is not None:
        deciles = " ".join(map(str, report["transition"]["deciles"]))
        console.print(f"t*: mean {report['transition']['mean']:.1f}, deciles {deciles}")
    for version in report["versions"]["published"]:
        console.print(f"published {version}", highlight=False)
