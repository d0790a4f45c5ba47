"""The live version's loss over time beside what could be known, versions marked."""

from pathlib import Path
from typing import Any


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """One panel a run; needs matplotlib (deploy/grafana/requirements.txt), else it says so."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        print(f"no {path.name}: matplotlib is not installed")
        return
    figure, panels = plt.subplots(
        len(runs), 1, figsize=(9, 3 * len(runs)), squeeze=False, layout="constrained"
    )
    for axes, run in zip(panels[:, 0], runs, strict=True):
        seconds = [look["seconds"] for look in run["looks"]]
        for name, label in (("live", "live version"), ("offline", "offline, converged")):
            axes.plot(seconds, [look[name] for look in run["looks"]], marker="o", label=label)
        for version in run["versions"]:
            axes.axvline(version["seconds"], color="0.85", zorder=0)
        axes.set_xlabel("seconds since the first request; a line is a version")
        axes.set_ylabel("held-out loss, Eq. 8")
        axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
