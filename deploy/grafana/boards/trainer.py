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
        "Following": [
            Panel(
                "Held-out loss",
                "At the last attempt to publish. A candidate below what is live is progress; both "
                "at the unconditional one: users tell the model nothing of their positives.",
                "none",
                {"{{of}}": f"turnpoint_trainer_held_out_loss{{{HERE}}}"},
                colours={"candidate": "blue", "live": GOOD, "unconditional": IDLE},
            ),
            Panel(
                "Drift",
                "How far embeddings have moved since the last publication. Above the line, which "
                "is the default of --publish-drift, the next one comes earlier.",
                "none",
                {"{{measure}}": f"turnpoint_trainer_drift_ratio{{{HERE}}}"},
                limit=0.2,
            ),
            Panel(
                "Jumps of the space",
                "In five minutes. One is an encoder that was trained anew; one after the other are "
                "two encoders that ask for one model.",
                "none",
                {"{{instance}}": f"increase(turnpoint_trainer_jumps_total{{{HERE}}}[5m])"},
            ),
            Panel(
                "Age of the pairs",
                "As they were learnt. It stands still while none come; if it grows, the follower "
                "is too slow.",
                "s",
                {"{{instance}}": f"turnpoint_trainer_stream_delay_seconds{{{HERE}}}"},
                width=6,
                limit=300,
            ),
            Panel(
                "Fresh pairs",
                "A second. 0 is a follower that waits for traffic, or stands by.",
                "cps",
                {"{{instance}}": f"rate(turnpoint_trainer_fresh_pairs_total{{{HERE}}}[{RATE}])"},
                width=6,
            ),
            Panel(
                "Entries",
                "A second, by what became of them. Refused: of another dimension or schema, or "
                "damaged. Lost: out of the stream before they were learnt.",
                "cps",
                {
                    "{{result}}": (
                        f"sum by (result) (rate(turnpoint_trainer_entries_total{{{HERE}}}[{RATE}]))"
                    )
                },
                Form.STACK,
                6,
                colours={"learnt": GOOD, "refused": BAD, "lost": "orange"},
            ),
            Panel(
                "Entries given again",
                "In five minutes, after a kill, a takeover or an answer that was lost: an upper "
                "bound of what was learnt twice.",
                "none",
                {"{{instance}}": f"increase(turnpoint_trainer_redelivered_total{{{HERE}}}[5m])"},
                width=6,
            ),
            Panel(
                "Who leads",
                "One worker a model learns; the others stand by.",
                "none",
                {"{{instance}}": f"turnpoint_trainer_leading{{{HERE}}}"},
                Form.STATES,
                12,
                states={"0": ("stands by", IDLE), "1": ("leads", GOOD)},
            ),
            Panel(
                "Source",
                "Whether pairs can be read. Who stands by for a snapshot, or waits for the first "
                "one, cannot.",
                "none",
                {"{{instance}}": f"turnpoint_trainer_source_up{{{HERE}}}"},
                Form.STATES,
                12,
                states={"0": ("gone", BAD), "1": ("up", GOOD)},
            ),
        ],
    },
)
