"""Does the trainer learn, how fast, and does what it learns get out?"""

from deploy.grafana.panels import BAD, GOOD, HERE, IDLE, RATE, Board, Form, Panel

PROCESS = f'job="turnpoint-trainer", {HERE}'

BOARD = Board(
    title="Turnpoint: trainer",
    uid="turnpoint-trainer",
    about="Does it learn, how fast, and does what it learns get out?",
    variables={"instance": "label_values(turnpoint_trainer_steps_total, instance)"},
    rows={
        "Learning": [
            Panel(
                "Loss",
                "Of the last step before each scrape. Falling, then level, is well; NaN is not.",
                "none",
                {"{{part}}": f"turnpoint_trainer_loss{{{HERE}}}"},
                width=12,
            ),
            Panel(
                "Pairs learnt from",
                "A second. 0 between epochs is an evaluation.",
                "cps",
                {"{{instance}}": f"rate(turnpoint_trainer_pairs_total{{{HERE}}}[{RATE}])"},
                width=12,
            ),
            Panel(
                "Steps",
                "Mini-batches a second.",
                "cps",
                {"{{instance}}": f"rate(turnpoint_trainer_steps_total{{{HERE}}}[{RATE}])"},
            ),
            Panel(
                "Steps that were not finite",
                "In five minutes. Any is one too many.",
                "none",
                {"{{part}}": f"increase(turnpoint_trainer_nonfinite_total{{{HERE}}}[5m])"},
                limit=1,
            ),
            Panel(
                "CPU",
                "Cores in use.",
                "none",
                {"{{instance}}": f"rate(process_cpu_seconds_total{{{PROCESS}}}[{RATE}])"},
            ),
        ],
        "Publishing": [
            Panel(
                "Lag",
                "Since this run last published, or began: how far what is served can be behind "
                "what was learnt. A saw whose teeth are the publications.",
                "s",
                {"{{instance}}": f"turnpoint_trainer_lag_seconds{{{HERE}}}"},
            ),
            Panel(
                "Publications",
                "In five minutes, by outcome.",
                "none",
                {
                    "{{result}}": (
                        f"sum by (result) (increase(turnpoint_trainer_publish_total{{{HERE}}}[5m]))"
                    )
                },
                Form.STACK,
                colours={"ok": GOOD, "held": IDLE, "refused": BAD, "failed": "orange"},
            ),
            Panel(
                "Memory",
                "Resident.",
                "bytes",
                {"{{instance}}": f"process_resident_memory_bytes{{{PROCESS}}}"},
            ),
        ],
    },
)
