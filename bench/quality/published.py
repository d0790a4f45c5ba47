"""What others report of the cells, as fractions, for a look beside our own figures.

Beauty, Toys and Table 3 are ADAR's Tables 2 and 3; its sequences are augmented by DR4SR, and ours
are not, and it says nothing of a validation split. TikTok's are DiffMM's (MM 2024), whose encoders
see the text features, too.
"""

METRICS = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")


def _adar(recall_10: float, recall_20: float, ndcg_10: float) -> dict[str, float]:
    return {"recall@10": recall_10, "recall@20": recall_20, "ndcg@10": ndcg_10}


def _diffmm(recall_20: float, ndcg_20: float) -> dict[str, float]:
    return {"recall@20": recall_20, "ndcg@20": ndcg_20}


PUBLISHED: dict[str, dict[str, dict[str, float]]] = {
    "beauty": {
        "ngcf": _adar(0.0637, 0.0950, 0.0411),
        "ngcf+adar": _adar(0.0813, 0.1176, 0.0521),
        "lightgcn": _adar(0.0869, 0.1240, 0.0577),
        "lightgcn+adar": _adar(0.0899, 0.1288, 0.0605),
        "mixgcf": _adar(0.0982, 0.1367, 0.0663),
        "mixgcf+adar": _adar(0.1001, 0.1410, 0.0690),
        "ahns": _adar(0.0966, 0.1350, 0.0651),
        "ahns+adar": _adar(0.1005, 0.1404, 0.0689),
        "gru4rec": _adar(0.0279, 0.0487, 0.0137),
        "gru4rec+adar": _adar(0.0434, 0.0696, 0.0217),
        "sasrec": _adar(0.0599, 0.0882, 0.0320),
        "sasrec+adar": _adar(0.0632, 0.0969, 0.0327),
        "cl4srec": _adar(0.0724, 0.1026, 0.0420),
        "cl4srec+adar": _adar(0.0744, 0.1065, 0.0431),
    },
    "toys": {
        "lightgcn": _adar(0.0822, 0.1150, 0.0555),
        "lightgcn+adar": _adar(0.0846, 0.1193, 0.0584),
        "sasrec": _adar(0.0727, 0.0995, 0.0413),
        "sasrec+adar": _adar(0.0772, 0.1052, 0.0450),
    },
    "table3": {
        "ngcf": _adar(0.0637, 0.0950, 0.0411),
        "ngcf+random": _adar(0.0781, 0.1159, 0.0513),
        "ngcf+fixed": _adar(0.0779, 0.1150, 0.0506),
        "ngcf+mixed": _adar(0.0791, 0.1163, 0.0511),
        "ngcf+adaptive": _adar(0.0813, 0.1176, 0.0521),
        "gru4rec": _adar(0.0279, 0.0487, 0.0137),
        "gru4rec+random": _adar(0.0400, 0.0631, 0.0199),
        "gru4rec+fixed": _adar(0.0337, 0.0559, 0.0166),
        "gru4rec+mixed": _adar(0.0351, 0.0576, 0.0177),
        "gru4rec+adaptive": _adar(0.0434, 0.0696, 0.0217),
    },
    "tiktok": {
        "lightgcn": _diffmm(0.0653, 0.0282),
        "vbpr": _diffmm(0.0380, 0.0134),
    },
}
