"""Every caller of the client benchmark gets its answers, and a ratio to the bare sockets."""

from pathlib import Path

from bench.client import BARE, CPU, P50, markdown, run
from bench.serving.contenders import Case


def test_everybody_takes_every_turn():
    found = run(Case(Path(), "none", rows=16, n=2, dim=8), seconds=0.0, rounds=2)
    assert {len(rounds) for rounds in found.values()} == {2}
    assert all(figures[P50] > 0 for rounds in found.values() for figures in rounds)
    lines = markdown(found)
    assert len(lines) == 2 + len(found)
    assert lines[2].startswith(f"| {BARE} |")


def test_ratios_are_paired_by_round():
    def rounds(*times: float) -> list[dict[str, float]]:
        return [{P50: time, CPU: 2 * time} for time in times]

    lines = markdown({BARE: rounds(1, 2, 4), "slow": rounds(3, 6, 12)})
    assert lines[3] == "| slow | 6.00 | 3.00 | 12.00 | 3.00 |"
