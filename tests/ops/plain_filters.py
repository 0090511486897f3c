"""Top-k, top-p and min-p, one row at a time in float64: what the filters of `ops/sampling.py` are held
against.
"""

import numpy as np


def kept_ids(logits, top_k=0, top_p=1.0, min_p=0.0, num_tokens=None) -> np.ndarray:
    """[V] bool, of scaled logits [V]. Ties do not occur."""
    p = np.exp(np.asarray(logits, np.float64) - np.max(logits))
    p[len(p) if num_tokens is None else num_tokens :] = 0
    ranked = [int(i) for i in np.argsort(-p) if p[i] > 0]
    if top_k:
        ranked = ranked[:top_k]
    mass, total, nucleus = 0.0, sum(p[i] for i in ranked), []
    for i in ranked:
        if mass < top_p * total:
            nucleus.append(i)
        mass += p[i]
    kept = [i for i in nucleus if p[i] >= min_p * p[ranked[0]]]
    return np.isin(np.arange(len(p)), kept)
