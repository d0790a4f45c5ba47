"""What is thrown at a running service, and whether it holds: docs/soak.md.

    python -m bench.soak overload --seconds 60 --out results      # one scenario
    python -m bench.soak all --redis --out results                # all of them

Each scenario is a file with one `run`, which starts `turnpoint serve` as a process, does its worst
and returns its `Findings`: figures, and checks that hold or do not. What they share is here once:
`callers` who behave, `open_loop` for load that does not wait, `versions` good and corrupt,
`garbage`, `refusals` for judging answers, `watch` for memory and metrics.
"""
