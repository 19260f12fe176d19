"""How well a way of matching finds shared tokens that it was not fitted on: the one score that knows the truth."""

import numpy as np

from revocab.alignment.evidence import Evidence, take
from revocab.alignment.problem import Settings
from revocab.alignment.space import Fit, search

LARGEST_SHARE = 0.2  # of the shared tokens that is held out, where there are few


def score_heldout(fit: Fit, evidence: Evidence, settings: Settings) -> dict[str, float | int] | None:
    """Return {pairs, fitted_on, top1, top5}: shares of held-out pairs whose source token is found first, or in five.

    `heldout_pairs` pairs drawn with the seed are left out of a fit that is made for this alone; they look for their
    partner among all frequent source tokens. None where nothing can be held out.
    """
    pairs = evidence.pairs
    num_heldout = min(settings.heldout_pairs, int(len(pairs) * LARGEST_SHARE))
    if not num_heldout:
        return None
    shuffled = np.random.default_rng(settings.seed).permutation(len(pairs))
    heldout, rest = take(pairs, shuffled[:num_heldout]), take(pairs, np.sort(shuffled[num_heldout:]))
    found_QK, _ = search(fit(evidence, rest, settings), heldout.target_ids, 5, settings)
    hits_QK = found_QK == heldout.source_ids[:, None]
    return {
        "pairs": num_heldout,
        "fitted_on": len(rest),
        "top1": float(hits_QK[:, 0].mean()),
        "top5": float(hits_QK.any(axis=1).mean()),
    }
