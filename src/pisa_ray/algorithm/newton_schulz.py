"""Newton-Schulz steps, the orthogonalisation of NSISA, (8) of docs/algorithm.md."""

from __future__ import annotations

import math

from pisa_ray.later import torch

A, B, C = 3.4445, -4.7750, 2.0315


def orthogonalise(x: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Bring the singular values of matrices near 1, keeping their singular vectors.

    X <- A X + B (X X^T) X + C (X X^T)^2 X, from X = x / (||x||_F + 1e-7). Singular values that enter above 0.01 leave
    in 0.68 .. 1.13; the coefficients trade exactness for speed, so that even orthogonal input changes a little. In
    bfloat16, the products take the sums in float32, which rounds less often and saves passes over memory.

    Args:
        x: One matrix [r, c] or a batch of them [n, r, c].
        steps: Number of steps.

    Returns:
        The result, of the same shape.
    """
    if x.dtype == torch.bfloat16 and x.dim() == 3 and len(x) == 1:  # its Gram matrix takes a third less time in 2-D
        return orthogonalise(x[0], steps)[None]
    tall = x.shape[-2] > x.shape[-1]
    X = x.transpose(-2, -1) if tall else x  # so that the Gram matrix is the smaller one
    norm: torch.Tensor = torch.linalg.matrix_norm(X, keepdim=True)
    X = X / (norm + 1e-7)
    plus = torch.addmm if X.dim() == 2 else torch.baddbmm
    for _ in range(steps):
        gram = X @ X.mT
        if X.dtype == torch.bfloat16:
            X = plus(X, plus(gram, gram, gram, beta=B, alpha=C), X, beta=A)
            continue
        X = A * X + (B * gram + C * gram @ gram) @ X
    return X.transpose(-2, -1) if tall else X


def shape_scale(rows: int, columns: int) -> float:
    """Return sqrt(max(1, r/c)), which gives a tall matrix an effect as large as a square one's."""
    return math.sqrt(max(1.0, rows / columns))
