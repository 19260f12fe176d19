"""The rotation that lays one set of vectors over another (orthogonal Procrustes, Schönemann 1966).

K pairs, D width.
"""

import torch
from torch import Tensor

from revocab.runtime.threads import few_threads


def rotation_onto(from_KD: Tensor, onto_KD: Tensor, weights_K: Tensor | None = None) -> Tensor:
    """Return the orthogonal (D, D) map Q that makes |from @ Q - onto| least: from the SVD of from.T @ onto.

    `weights_K`, at least 0, say how much each pair counts; None: all the same.

    Worked in float64 on the CPU: D x D is small, and the result should not depend on the device.
    """
    onto = onto_KD.double().cpu()
    if weights_K is not None:
        onto = onto * weights_K.double().cpu()[:, None]
    cross_DD = from_KD.double().cpu().T @ onto
    with few_threads():
        left, _, right = torch.linalg.svd(cross_DD)
    return (left @ right).to(from_KD)
