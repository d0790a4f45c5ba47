"""The tables, as data, each in the order of what its cells teach.

The pages named here are in docs/quality.

A method's cell has as many trials as its base: all search the encoder's regulariser; where runs are
cheap then the base its learning rate, and the method what only it has.
"""

from dataclasses import replace
from typing import Any

from bench.quality.cells import Cell, Settings, Stage

LITERAL: Settings = {"method": "adar", "transition.rule": "score_aware"}  # the paper's Eq. 11
OURS: Settings = {  # t* = T: mixing with the positive lost to a searched L2 (ablations.md)
    "method": "catalogue",
    "transition.rule": "fixed",
    "transition.hardness": 0.0,
    "candidates": 32,
}
EASIER: Settings = {**OURS, "candidates": 16}  # of sequences: .135 on validation where 32 have .123
OURS_STAGE: Stage = {"draws": (1, 4, 8)}
SEQUENCES = {"gru4rec", "sasrec", "cl4srec"}
CHEAP = {"mf"}  # encoders whose cells have a second stage of search

LITERAL_STAGE: Stage = {"weight": (0.03, 0.1, 0.3)}
BASE_STAGE: Stage = {"learning_rate": (1e-3, 3e-3, 1e-2)}
DNS_STAGE: Stage = {"candidates": (8, 16, 32)}

REGULARISERS: dict[str, Stage] = {
    "mf": {"l2": (1e-2, 3e-2, 1e-1, 3e-1)},
    "lightgcn": {"l2": (1e-3, 1e-2, 3e-2, 1e-1)},
    "ngcf": {"l2": (1e-4, 1e-3, 1e-2)},
    "gru4rec": {"dropout": (0.1, 0.3, 0.5)},
    "sasrec": {"dropout": (0.1, 0.3, 0.5)},
    "cl4srec": {"dropout": (0.1, 0.3, 0.5)},
    # A sampler's own: with the released beta, .1, four L2 came to .110 at most on validation.
    "ahns": {"l2": (1e-2, 3e-2), "ahns_beta": (3.0, 10.0)},
}
EPOCHS = {"mf": 150, "lightgcn": 120, "ngcf": 150, "gru4rec": 120, "sasrec": 120, "cl4srec": 120}
# A step costs a pass over the graph: large batches need less than half the time (protocol.md).
LARGE: Settings = {"batch_size": 8192, "learning_rate": 1e-2}
BATCHES = {"lightgcn": LARGE}
THREE = (0, 1, 2)
SAMPLERS = ("lightgcn", "lightgcn/dns")  # what MixGCF and AHNS stand beside


def family(
    data: str, encoder: str, seeds: tuple[int, ...] = (0,), negatives: str | None = None
) -> list[Cell]:
    """A base, our rule, DNS and the literal method, over the same encoder.

    A base with a sampler of `negatives` is named after it, compared with `SAMPLERS`, and has no
    DNS. Ours takes the sampler's place: over every sampler of an encoder it is the same training.
    """
    name = negatives or encoder
    sampled: Settings = {} if negatives is None else {"negatives": negatives}
    common = {"epochs": EPOCHS[encoder], **BATCHES.get(encoder, {})}

    dns, adar = f"{name}/dns", f"{name}+adar"

    def cell(label: str, stage: Stage, more: Settings, *rivals: str) -> Cell:
        first = REGULARISERS.get(more.get("negatives", ""), REGULARISERS[encoder])
        space = (first, stage) if encoder in CHEAP else (first,)
        against = None if label == name else name
        return Cell(label, data, encoder, {**common, **more}, space, against, seeds, rivals)

    cells = [
        cell(name, BASE_STAGE, sampled, *(SAMPLERS if negatives else ())),
        cell(f"{name}+ours", OURS_STAGE, EASIER if encoder in SEQUENCES else OURS, dns, adar),
        cell(dns, DNS_STAGE, {"negatives": "dns"}),
        cell(adar, LITERAL_STAGE, {**sampled, **LITERAL}),
    ]
    return [one for one in cells if one.label != dns] if negatives else cells


def sisters() -> list[Cell]:
    """DMNS and CNSDiff beside ADAR, over LightGCN."""
    base, _, _, literal = family("beauty", "lightgcn", THREE)
    return [
        replace(base, label=f"lightgcn+{method}", settings={**base.settings, "method": method},
                against=base.label, rivals=(literal.label,))
        for method in ("dmns", "cnsdiff")
    ]  # fmt: skip


def variants(encoder: str) -> list[Cell]:
    """The paper's Table 3: where t* comes from."""
    base, _, _, literal = family("beauty", encoder)
    rules = {"random": "random", "fixed": "fixed", "mixed": "mixed", "adaptive": "score_aware"}
    told = [
        replace(literal, label=f"{encoder}+{name}",
                settings={**literal.settings, "transition.rule": rule})
        for name, rule in rules.items()
    ]  # fmt: skip
    return [base, *told]


def converged(encoder: str, base: float, ours: float, dns: float) -> list[Cell]:
    """Whether sequences catch up when they may train on until 100 epochs bring no gain.

    `base`, `ours` and `dns` are the dropouts that these chose on Beauty.
    """
    common = {"epochs": 1000, "patience": 20}
    return [
        replace(cell, settings={**cell.settings, **common, "dropout": dropout}, space=(),
                rivals=tuple(rival for rival in cell.rivals if rival.endswith("/dns")))
        for cell, dropout in zip(family("beauty", encoder)[:3], (base, ours, dns), strict=True)
    ]  # fmt: skip


def sweep(
    name: str, settings: Settings, field: str, values: tuple[Any, ...], encoder: str = "lightgcn"
) -> list[Cell]:
    """One field over an encoder, all else at its default."""
    common = {"epochs": EPOCHS[encoder], **BATCHES.get(encoder, {}), **settings}
    return [
        Cell(f"{name}:{field}={value}", "beauty", encoder, {**common, field: value})
        for value in values
    ]


def shifted() -> list[Cell]:
    """yelp2018, whose second test has another popularity: LightGCN under every kind of negative."""
    kinds: dict[str, Settings] = {
        "uniform": {},
        "dns": {"negatives": "dns"},
        "popularity": {"negatives": "popularity"},
        "mixgcf": {"negatives": "mixgcf"},
        "adar": LITERAL,
        "ours": OURS,
        **{f"cnsdiff {variant}": {"method": "cnsdiff", "cnsdiff_variant": variant}
           for variant in ("released", "described", "causal")},
    }  # fmt: skip
    common = {"epochs": EPOCHS["lightgcn"], **LARGE}
    space: tuple[Stage, ...] = ({"l2": (1e-4, 1e-3, 1e-2)},)
    best = "cnsdiff causal"
    return [
        Cell(kind, "yelp2018", "lightgcn", {**common, **settings}, space,
             None if kind == "uniform" else "uniform", THREE,
             tuple(other for other in kinds if other not in (best, "uniform"))
             if kind == best else ())
        for kind, settings in kinds.items()
    ]  # fmt: skip


def multimodal(encoder: str, l2: tuple[float, ...]) -> list[Cell]:
    """TikTok's images and sounds: one encoder under every kind of negative.

    GDNSM generates in 8 DDIM steps of one linear layer, the cheaper of the paper's two denoisers;
    patience reaches past the epoch at which its queue opens.
    """
    gdnsm: Settings = {"method": "gdnsm", "gdnsm_denoiser": "linear", "ddim_steps": 8}
    kinds: dict[str, Settings] = {
        "/dns": {"negatives": "dns"},
        "+dmns": {"method": "dmns"},
        "+gdnsm": gdnsm,
        "+gdnsm at once": {**gdnsm, "gdnsm_start": 0},
    }
    common = {"epochs": 150, "patience": 8}
    space: tuple[Stage, ...] = ({"l2": l2},)
    dns, at_once = f"{encoder}/dns", f"{encoder}+gdnsm at once"
    return [
        Cell(encoder, "tiktok", encoder, common, space, None, THREE),
        *(
            Cell(f"{encoder}{kind}", "tiktok", encoder, {**common, **settings}, space, encoder,
                 THREE, (dns, at_once) if kind == "+gdnsm" else ())
            for kind, settings in kinds.items()
        ),
    ]  # fmt: skip


GRAPH_L2 = (1e-3, 3e-3, 1e-2, 3e-2)  # TikTok's, of encoders on the graph
# At t* = T neither lambda nor T matters to ours; these do, at the L2 that it chose.
OURS_TUNED: Settings = {**OURS, "l2": 0.03, "draws": 4}

# Seconds on generated data, to see that all of it works; its figures mean nothing.
_TINY: Settings = {"epochs": 4, "eval_every": 2, "dim": 16}
SMOKE = [
    Cell("mf", "generated", "mf", _TINY, ({"l2": (1e-2, 1e-1)},), None, THREE),
    Cell("mf+adar", "generated", "mf", {**_TINY, **LITERAL}, ({"l2": (1e-2, 1e-1)},), "mf", THREE),
]

TABLES: dict[str, list[Cell]] = {
    "beauty": [
        *family("beauty", "lightgcn", THREE),
        *sisters(),
        *family("beauty", "mf", THREE),
        *family("beauty", "sasrec", THREE),
        *family("beauty", "ngcf"),
        *family("beauty", "gru4rec"),
        *family("beauty", "lightgcn", THREE, "mixgcf"),
        *family("beauty", "lightgcn", THREE, "ahns"),
        *family("beauty", "cl4srec"),
    ],
    "toys": [
        *family("toys", "lightgcn", THREE),
        *family("toys", "mf", THREE),
        *family("toys", "sasrec", THREE),
    ],
    "converged": [
        *converged("sasrec", 0.5, 0.1, 0.1),
        *converged("gru4rec", 0.1, 0.5, 0.5),
        *converged("cl4srec", 0.5, 0.5, 0.5),
    ],
    "table3": [*variants("ngcf"), *variants("gru4rec")],
    "sweeps": [
        *sweep("adar", LITERAL, "weight", (0.0, 0.03, 0.1, 0.3, 1.0)),
        *sweep("adar", LITERAL, "num_steps", (5, 10, 20, 50, 100, 200)),
        *sweep("ours", OURS_TUNED, "candidates", (2, 8, 32, 128)),
        *sweep("ours", OURS_TUNED, "draws", (1, 2, 4, 8)),
        *sweep("ours", OURS_TUNED, "transition.hardness", (0.0, 0.25, 0.5, 0.75)),
        *sweep("uniform", {}, "cl4srec_contrast", (0.01, 0.03, 0.1), "cl4srec"),
    ],
    "yelp2018": shifted(),
    "tiktok": [
        *multimodal("mmlightgcn", GRAPH_L2),
        *multimodal("lightgcn", GRAPH_L2),
        *multimodal("vbpr", (1e-2, 3e-2, 1e-1, 3e-1)),
    ],
    "smoke": SMOKE,
}
