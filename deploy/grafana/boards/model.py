"""Which version is live, how old it is, and what it generates."""

from deploy.grafana.panels import BAD, GOOD, HERE, RATE, Board, Form, Panel, quantiles

MODEL = f'model=~"$model", {HERE}'

BOARD = Board(
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
                colours={".* ok": GOOD, ".* (?!ok).*": BAD},
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
