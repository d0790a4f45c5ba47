"""The three dashboards. Every metric in them is in docs/api.md, every alert in docs/runbook.md."""

from deploy.grafana.panels import RATE, Board, Form, Panel, quantiles

HERE = 'instance=~"$instance"'
ASKED = f'route="/negatives", {HERE}'
MODEL = f'model=~"$model", {HERE}'
GOOD, BAD, IDLE = "green", "red", "text"
STAGES = ("decode", "queue", "sample", "encode")


def mean_of(histogram: str) -> str:
    """The mean of a histogram without labels of its own."""
    sums, counts = (
        f"sum(rate(turnpoint_{histogram}_{part}{{{HERE}}}[{RATE}]))" for part in ("sum", "count")
    )
    return f"{sums} / {counts}"


SERVICE = Board(
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
                "200 is well; 4xx is the callers' doing but for 429, which is overload; 499 hung up.",
                "reqps",
                {
                    "{{code}}": (
                        f"sum by (code) (rate(turnpoint_requests_total{{{ASKED}}}[{RATE}]))"
                    )
                },
                Form.STACK,
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
                "Mean of each stage. Queue grows: too few replicas. Sample grows: larger batches, a "
                "dearer rule, or neighbours on the machine. What is missing to the latency is the "
                "network and the callers.",
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
                6,
            ),
            Panel(
                "Time of a look-up",
                "Looking up and remembering, of one batch.",
                "s",
                quantiles(f"turnpoint_cache_seconds_bucket{{{HERE}}}", "", 0.5, 0.99),
                width=6,
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
                6,
            ),
            Panel(
                "Memory",
                "Resident, by replica: models, the queue, the cache in process.",
                "bytes",
                {"{{instance}}": f'process_resident_memory_bytes{{job="turnpoint", {HERE}}}'},
                width=6,
            ),
            Panel(
                "Redis and the cache in use",
                "Redis open: it failed, and is not asked until a probe succeeds. No Redis configured "
                "shows as none. The cache in use switches itself off where it does not pay.",
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

MODELS = Board(
    title="Turnpoint: model",
    uid="turnpoint-model",
    about="Which version is live, how old it is, and what it generates.",
    variables={
        "instance": "label_values(turnpoint_ready, instance)",
        "model": "label_values(turnpoint_model_info, model)",
    },
    rows={
        "Versions": [
            Panel(
                "Live version",
                "Which version answered when. Two at once: replicas are between two polls.",
                "none",
                {
                    "{{model}} {{version}}": (
                        f"max by (model, version) (turnpoint_model_info{{{MODEL}}})"
                    )
                },
                Form.STATES,
                24,
                states={"1": ("live", GOOD)},
            ),
            Panel(
                "Stuck",
                "Swap failing: the registry's live version cannot be made live. Registry: whether "
                "it could be read.",
                "none",
                {
                    "swap failing {{model}} {{instance}}": f"turnpoint_swap_failing{{{MODEL}}}",
                    "registry gone {{instance}}": f"1 - turnpoint_registry_up{{{HERE}}}",
                },
                Form.STATES,
                24,
                states={"0": ("no", GOOD), "1": ("yes", BAD)},
            ),
            Panel(
                "Age",
                "Since the live checkpoint was made. It grows while nothing new is published.",
                "s",
                {"{{model}}": f"max by (model) (turnpoint_model_age_seconds{{{MODEL}}})"},
                width=12,
            ),
            Panel(
                "Swaps",
                "New versions seen in five minutes, by outcome. All but ok leave the old one live.",
                "none",
                {
                    "{{model}} {{result}}": (
                        f"sum by (model, result) (increase(turnpoint_swaps_total{{{MODEL}}}[5m]))"
                    )
                },
                Form.STACK,
                12,
            ),
        ],
        "What it generates": [
            Panel(
                "Transition point",
                "t* as a share of T: 1 is pure noise, the easiest negatives. All rows at one end: "
                "the rule no longer tells users apart.",
                "percentunit",
                {
                    "{{le}}": (
                        f"sum by (le) (rate(turnpoint_transition_step_bucket{{{MODEL}}}[{RATE}]))"
                    )
                },
                Form.HEATMAP,
            ),
            Panel(
                "Positive's score less the negative's",
                "<e_u, e_i> - <e_u, e_d> over |e_u| |e_i|, of a sample. Towards 0: hard negatives; "
                "below 0: harder than their positives.",
                "none",
                quantiles(f"turnpoint_score_gap_bucket{{{MODEL}}}", "model", 0.1, 0.5, 0.9),
            ),
            Panel(
                "Negatives that beat their positive",
                "Share of the sample. A jump after a swap: the callers' embeddings are not those "
                "that the version was trained on.",
                "percentunit",
                {
                    "{{model}}": (
                        "sum by (model) "
                        f'(rate(turnpoint_score_gap_bucket{{le="0.0", {MODEL}}}[{RATE}])) '
                        "/ sum by (model) "
                        f'(rate(turnpoint_score_gap_bucket{{le="+Inf", {MODEL}}}[{RATE}]))'
                    )
                },
            ),
            Panel(
                "Transition point, percentiles",
                "The same t* as lines.",
                "percentunit",
                quantiles(f"turnpoint_transition_step_bucket{{{MODEL}}}", "model", 0.1, 0.5, 0.9),
                width=24,
            ),
        ],
    },
)

TRAINER = Board(
    title="Turnpoint: trainer",
    uid="turnpoint-trainer",
    about="Does it learn, how fast, and does what it learns get out?",
    variables={"instance": "label_values(turnpoint_trainer_steps_total, instance)"},
    rows={
        "Learning": [
            Panel(
                "Loss",
                "Of the last step before each scrape. Falling, then level, is well; NaN is the end.",
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
                {
                    "{{instance}}": (
                        f'rate(process_cpu_seconds_total{{job="turnpoint-trainer", {HERE}}}[{RATE}])'
                    )
                },
            ),
        ],
        "Publishing": [
            Panel(
                "Lag",
                "Since this run last published, or began: how far what is served can be behind what "
                "was learnt. A saw whose teeth are the publications.",
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
            ),
            Panel(
                "Memory",
                "Resident.",
                "bytes",
                {
                    "{{instance}}": (
                        f'process_resident_memory_bytes{{job="turnpoint-trainer", {HERE}}}'
                    )
                },
            ),
        ],
    },
)

BOARDS = (SERVICE, MODELS, TRAINER)
