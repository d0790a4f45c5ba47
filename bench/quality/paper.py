"""What the paper reports (ADAR, Tables 2 and 3): Recall@10, Recall@20, NDCG@10, as fractions.

Its sequences are augmented by DR4SR, and ours are not; it says nothing of a validation split.
"""

PAPER: dict[str, dict[str, tuple[float, float, float]]] = {
    "beauty": {
        "ngcf": (0.0637, 0.0950, 0.0411),
        "ngcf+adar": (0.0813, 0.1176, 0.0521),
        "lightgcn": (0.0869, 0.1240, 0.0577),
        "lightgcn+adar": (0.0899, 0.1288, 0.0605),
        "mixgcf": (0.0982, 0.1367, 0.0663),
        "mixgcf+adar": (0.1001, 0.1410, 0.0690),
        "ahns": (0.0966, 0.1350, 0.0651),
        "ahns+adar": (0.1005, 0.1404, 0.0689),
        "gru4rec": (0.0279, 0.0487, 0.0137),
        "gru4rec+adar": (0.0434, 0.0696, 0.0217),
        "sasrec": (0.0599, 0.0882, 0.0320),
        "sasrec+adar": (0.0632, 0.0969, 0.0327),
        "cl4srec": (0.0724, 0.1026, 0.0420),
        "cl4srec+adar": (0.0744, 0.1065, 0.0431),
    },
    "toys": {
        "lightgcn": (0.0822, 0.1150, 0.0555),
        "lightgcn+adar": (0.0846, 0.1193, 0.0584),
        "sasrec": (0.0727, 0.0995, 0.0413),
        "sasrec+adar": (0.0772, 0.1052, 0.0450),
    },
    "table3": {
        "ngcf": (0.0637, 0.0950, 0.0411),
        "ngcf+random": (0.0781, 0.1159, 0.0513),
        "ngcf+fixed": (0.0779, 0.1150, 0.0506),
        "ngcf+mixed": (0.0791, 0.1163, 0.0511),
        "ngcf+adaptive": (0.0813, 0.1176, 0.0521),
        "gru4rec": (0.0279, 0.0487, 0.0137),
        "gru4rec+random": (0.0400, 0.0631, 0.0199),
        "gru4rec+fixed": (0.0337, 0.0559, 0.0166),
        "gru4rec+mixed": (0.0351, 0.0576, 0.0177),
        "gru4rec+adaptive": (0.0434, 0.0696, 0.0217),
    },
}
