"""The serving benchmark: Turnpoint beside other servers and beside its floor, in one run.

    python -m bench.serving --rows 2048 --n 8 --out results      # everybody, in turn
    python -m bench.serving.sweep --out results                  # Turnpoint, one factor at a time

`contenders` lists who takes part; each is a file of its own, a process of its own and answers from
the same checkpoint. `load` asks them all with the same closed loop, which reads whole answers.
"""
