"""Is the service well, and if not: traffic, time, room, cache or Redis?"""

from deploy.grafana.panels import BAD, GOOD, HERE, IDLE, RATE, Board, Form, Panel, quantiles

ASKED = f'route="/negatives", {HERE}'
STAGES = ("decode", "queue", "sample", "encode")


def mean_of(histogram: str) -> str:
    """The mean of a histogram without labels of its own."""
    sums, counts = (
        f"sum(rate(turnpoint_{histogram}_{part}{{{HERE}}}[{RATE}]))" for part in ("sum", "count")
    )
    return f"{sums} / {counts}"


BOARD = Board(
    title="Turnpoint: service",
    uid="turnpoint-service",
    about="Is it well, and if not: traffic, time, room, cache or Redis? Start here.",
    variables={"instance": "label_values(turnpoint_ready, instance)"},
    rows={
        "At a glance": [
            Panel(
                "Ready replicas",
                "Replicas whose /readyz says yes. At 0 every request is answered with 503.",
                "none",
                {"ready": "sum(turnpoint_ready)"},
                Form.NUMBER,
                4,
                limit=1,
                limit_below=True,
            ),
            Panel(
                "Requests",
                "POST /negatives a second, whatever the answer.",
                "reqps",
                {"requests": f"sum(rate(turnpoint_requests_total{{{ASKED}}}[{RATE}]))"},
                Form.NUMBER,
                4,
            ),
            Panel(
                "Not served",
                "Share of the last five minutes answered with a 5xx or a 429. Promised: 0.1 %.",
                "percentunit",
                {"not served": "turnpoint:requests_unserved:ratio_rate5m"},
                Form.NUMBER,
                4,
                limit=0.001,
            ),
            Panel(
                "Slower than 0.5 s",
                "Share of the last five minutes. Promised: 1 %.",
                "percentunit",
                {"slow": "turnpoint:requests_slow:ratio_rate5m"},
                Form.NUMBER,
                4,
                limit=0.01,
            ),
            Panel(
                "Rows",
                "Rows computed a second; what capacity is planned by.",
                "cps",
                {"rows": f"sum(rate(turnpoint_batch_rows_sum{{{HERE}}}[{RATE}]))"},
                Form.NUMBER,
                4,
            ),
            Panel(
                "Alerts",
                "Firing now. Each links to its section of the runbook.",
                "none",
                {"firing": 'count(ALERTS{alertstate="firing"}) or vector(0)'},
                Form.NUMBER,
                4,
                limit=1,
            ),
        ],
        "Traffic": [
            Panel(
                "Requests by status",
                "200 is well; 4xx is the callers' doing, but 429 is overload; 499 hung up.",
                "reqps",
                {
                    "{{code}}": (
                        f"sum by (code) (rate(turnpoint_requests_total{{{ASKED}}}[{RATE}]))"
                    )
                },
                Form.STACK,
                colours={"2..": GOOD, "4..": "yellow", "(429|5..)": BAD, "499": IDLE},
            ),
            Panel(
                "Refusals by reason",
                "The code of each refusal; docs/errors.md says what each means and mends it.",
                "reqps",
                {
                    "{{reason}}": (
                        f"sum by (reason) (rate(turnpoint_rejected_total{{{HERE}}}[{RATE}]))"
                    )
                },
                Form.STACK,
            ),
            Panel(
                "Negatives",
                "Generated a second, by model.",
                "cps",
                {
                    "{{model}}": (
                        f"sum by (model) (rate(turnpoint_negatives_total{{{HERE}}}[{RATE}]))"
                    )
                },
            ),
        ],
        "Time": [
            Panel(
                "Latency, all of it",
                "How many requests took how long, from head to end of the answer.",
                "s",
                {
                    "{{le}}": (
                        f"sum by (le) (rate(turnpoint_request_seconds_bucket{{{ASKED}}}[{RATE}]))"
                    )
                },
                Form.HEATMAP,
            ),
            Panel(
                "Latency",
                "Percentiles of the same. The promise is on 0.5 s.",
                "s",
                quantiles(f"turnpoint_request_seconds_bucket{{{ASKED}}}", "", 0.5, 0.95, 0.99),
                limit=0.5,
            ),
            Panel(
                "Where the time goes",
                "Mean of each stage. Queue grows: too few replicas. Sample grows: larger batches, "
                "a dearer rule, or neighbours on the machine. What is missing to the latency is "
                "the network and the callers.",
                "s",
                {stage: mean_of(f"{stage}_seconds") for stage in STAGES},
                Form.STACK,
            ),
        ],
        "Room": [
            Panel(
                "Queue",
                "Rows accepted and not yet answered, by replica.",
                "none",
                {"{{instance}}": f"turnpoint_queue_rows{{{HERE}}}"},
                width=6,
            ),
            Panel(
                "Queue, how full",
                "The fuller of rows and bytes, over its bound; at 1 requests are refused with 429.",
                "percentunit",
                {"{{instance}}": f"turnpoint_queue_fill_ratio{{{HERE}}}"},
                width=6,
                limit=0.6,
            ),
            Panel(
                "Rows per batch",
                "Of one computation. Small batches waste the machine: ask for more rows at once.",
                "none",
                {
                    "mean": mean_of("batch_rows"),
                    **quantiles(f"turnpoint_batch_rows_bucket{{{HERE}}}", "", 0.95),
                },
                width=6,
            ),
            Panel(
                "CPU",
                "Cores in use, by replica: one for the model thread, one for HTTP at most.",
                "none",
                {
                    "{{instance}}": (
                        f'rate(process_cpu_seconds_total{{job="turnpoint", {HERE}}}[{RATE}])'
                    )
                },
                width=6,
            ),
        ],
        "Cache and Redis": [
            Panel(
                "Rows asked of the cache",
                "Bypassed: seeded, or where looking up is measured not to pay. Error: Redis was "
                "asked and did not answer in time.",
                "cps",
                {
                    "{{result}}": (
                        f"sum by (result) (rate(turnpoint_cache_requests_total{{{HERE}}}[{RATE}]))"
                    )
                },
                Form.STACK,
                colours={"hit": GOOD, "miss": "blue", "bypassed": IDLE, "(garbage|error)": BAD},
            ),
            Panel(
                "Time of a look-up",
                "Looking up and remembering, of one batch.",
                "s",
                quantiles(f"turnpoint_cache_seconds_bucket{{{HERE}}}", "", 0.5, 0.99),
            ),
            Panel(
                "Writes to Redis",
                "Dropped: more was made than the writer could take.",
                "cps",
                {
                    "{{result}}": (
                        f"sum by (result) (rate(turnpoint_cache_writes_total{{{HERE}}}[{RATE}]))"
                    )
                },
                Form.STACK,
                colours={"stored": GOOD, "dropped": "yellow", "failed": BAD},
            ),
            Panel(
                "Pairs on the stream",
                "Rows copied for trainers to learn from, and sampled rows that were dropped: no "
                "Redis, or more than the writer could take. Nothing where the stream is off.",
                "cps",
                {
                    "written": f"sum(rate(turnpoint_stream_pairs_total{{{HERE}}}[{RATE}]))",
                    "dropped: {{reason}}": (
                        f"sum by (reason) (rate(turnpoint_stream_dropped_total{{{HERE}}}[{RATE}]))"
                    ),
                },
                Form.STACK,
                12,
                colours={"written": GOOD, "dropped.*": BAD},
            ),
            Panel(
                "Memory",
                "Resident, by replica: models, the queue, the cache in process.",
                "bytes",
                {"{{instance}}": f'process_resident_memory_bytes{{job="turnpoint", {HERE}}}'},
                width=12,
            ),
            Panel(
                "Redis and the cache in use",
                "Redis no: it failed, and is not asked until a probe succeeds; without one nothing "
                "is shown. The cache switches itself off where it does not pay.",
                "none",
                {
                    "Redis {{instance}}": f"turnpoint_redis_up{{{HERE}}}",
                    "cache of {{model}} {{instance}}": f"turnpoint_cache_enabled{{{HERE}}}",
                },
                Form.STATES,
                24,
                states={"1": ("yes", GOOD), "0": ("no", BAD)},
            ),
        ],
    },
)
