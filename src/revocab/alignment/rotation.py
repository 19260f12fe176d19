"""The rotation that lays one set of vectors over another (orthogonal Procrustes, Schönemann 1966).

K pairs, D width.
"""

import torch
from torch import Tensor


def rotation_onto(from_KD: Tensor, onto_KD: Tensor) -> Tensor:
    """Return the orthogonal (D, D) map Q that makes |from @ Q - onto| least: from the SVD of from.T @ onto.

    Worked in float64 on the CPU: D x D is small, and the result should not depend on the device.
    """
    cross_DD = from_KD.double().cpu().T @ onto_KD.double().cpu()
    left, _, right = torch.linalg.svd(cross_DD)
    return (left @ right).to(from_KD)
