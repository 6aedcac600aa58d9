"""The four methods as optimizers, with their keywords and default numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim.optimizer import ParamsT

from pisa_ray import algorithm
from pisa_ray.algorithm import Adam, Instantaneous, SecondMoment
from pisa_ray.algorithm.methods.groups import NAMED
from pisa_ray.algorithm.methods.nsisa import Precision
from pisa_ray.algorithm.preconditioners import Identity
from pisa_ray.errors import ConfigError
from pisa_ray.optim.optimizer import AdmmOptimizer


class PISA(AdmmOptimizer):
    """PISA with Q = q I, which is SGD with momentum rho q / (sigma + rho q) and a dual for each shard.

    The defaults are like torch's SGD with rate 1/30 and momentum 0.9, for losses of the size of a cross-entropy; scale
    sigma and rho with the loss.

    Args:
        params: See AdmmOptimizer.
        sigma: The penalty, > 0; 1/sigma acts like a learning rate.
        rho: Weight of the proximal term, >= 0.
        lam: lambda of (lambda/2) ||w||^2, >= 0.
        preconditioner: Identity(q); the others need the loss, which only PisaTrainer has.
        lr: See AdmmOptimizer.
        shards: See AdmmOptimizer.
    """

    def __init__(
        self,
        params: ParamsT,
        *,
        sigma: float = 3.0,
        rho: float = 27.0,
        lam: float = 0.0,
        preconditioner: Identity | None = None,
        lr: float = 1.0,
        shards: int = 1,
    ) -> None:
        rule = algorithm.PISA(sigma=sigma, rho=rho, lam=lam, preconditioner=preconditioner or Identity())
        super().__init__(params, rule, lr=lr, shards=shards)


class SISA(AdmmOptimizer):
    """SISA, with Q = Diag(sqrt(m)) and m a second moment of d = pi + g.

    The defaults are careful, for losses of the size of a cross-entropy; scale sigma with the loss.

    Args:
        params: See AdmmOptimizer.
        sigma: The penalty, > 0; 1/sigma acts like a learning rate.
        rho: Weight of the preconditioned proximal term, >= 0.
        lam: lambda of (lambda/2) ||w||^2, >= 0.
        second_moment: Adam (bias-corrected), RMSProp, AdaGrad or Instantaneous.
        eps: Added to sqrt(m), >= 0.
        lr: See AdmmOptimizer.
        shards: See AdmmOptimizer.
    """

    def __init__(
        self,
        params: ParamsT,
        *,
        sigma: float = 3.0,
        rho: float = 300.0,
        lam: float = 0.0,
        second_moment: SecondMoment | None = None,
        eps: float = 1e-8,
        lr: float = 1.0,
        shards: int = 1,
    ) -> None:
        rule = algorithm.SISA(sigma=sigma, rho=rho, lam=lam, second_moment=second_moment or Adam(), eps=eps)
        super().__init__(params, rule, lr=lr, shards=shards)


class SISAD(AdmmOptimizer):
    """SISA-D, whose penalty is diagonal: sigma (sqrt(v) + eps).

    So a step does not depend on the scale of the loss while gradients are well above eps. The defaults are like Adam
    with rate 0.003 and momentum 0.9; beside NSISA a tenth of this sigma is right.

    Args:
        params: See AdmmOptimizer.
        sigma: The penalty in units of sqrt(v) + eps, > 0; 1/sigma acts like a learning rate.
        rho: The weight of the proximal term in the same units, >= 0; the momentum is rho / (sigma + rho).
        lam: lambda of (lambda/2) ||w||^2, >= 0.
        beta: Decay of v, in [0, 1).
        eps: Added to sqrt(v), > 0.
        lr: See AdmmOptimizer.
        shards: See AdmmOptimizer.
    """

    def __init__(
        self,
        params: ParamsT,
        *,
        sigma: float = 300.0,
        rho: float = 2700.0,
        lam: float = 0.0,
        beta: float = 0.99,
        eps: float = 1e-4,
        lr: float = 1.0,
        shards: int = 1,
    ) -> None:
        rule = algorithm.SISAD(sigma=sigma, rho=rho, lam=lam, beta=beta, eps=eps)
        super().__init__(params, rule, lr=lr, shards=shards)


class NSISA(AdmmOptimizer):
    """NSISA, which is SISA on orthogonalised momentum for matrices, and `rest` for all other parameters.

    Give it `groups(module)`, so that embeddings and the last linear layer follow the rest; without groups, all
    parameters with two or more dimensions count as matrices. The defaults are those of the GPT in docs/optim.md.

    Args:
        params: See AdmmOptimizer. A group's "kind" says what its parameters are: "matrices", "embeddings", "heads" or
            "vectors".
        sigma: The penalty of matrices, > 0; 1/sigma acts like a learning rate.
        rho: The weight of the preconditioned proximal term of matrices, >= 0.
        lam: lambda of (lambda/2) ||w||^2 of matrices, >= 0.
        rest: The rule of all other parameters, such as pisa_ray.SISAD(sigma=30, rho=570), with a lambda of its own.
            None: SISA with the same numbers, and the last layer is a matrix, too, as in the paper.
        eps: Added to sqrt(m), >= 0.
        mu: Momentum, in [0, 1).
        nesterov: Whether to orthogonalise g + mu b instead of b.
        steps: The number of Newton-Schulz steps.
        precision: The precision of their products: "float32", "bfloat16", or "auto", which is bfloat16 on GPUs and
            float32 elsewhere; the group says which.
        matrix_moment: The second moment of the matrices.
        perturbation: The number that replaces entries of d that are 0.
        second_moment: The second moment of SISA if rest is None.
        lr: See AdmmOptimizer.
        shards: See AdmmOptimizer.
    """

    def __init__(
        self,
        params: ParamsT,
        *,
        sigma: float = 20.0,
        rho: float = 80.0,
        lam: float = 0.0,
        rest: algorithm.AdmmRule | None = algorithm.SISAD(sigma=30.0, rho=570.0),  # noqa: B008  (it is frozen)
        eps: float = 1e-8,
        mu: float = 0.95,
        nesterov: bool = True,
        steps: int = 5,
        precision: Precision = "auto",
        matrix_moment: SecondMoment | None = None,
        perturbation: float = 1e-15,
        second_moment: SecondMoment | None = None,
        lr: float = 1.0,
        shards: int = 1,
    ) -> None:
        rule = algorithm.NSISA(
            sigma=sigma, rho=rho, lam=lam, rest=rest, eps=eps, mu=mu, nesterov=nesterov, steps=steps,
            precision=precision, matrix_moment=matrix_moment or Instantaneous(), perturbation=perturbation,
        )  # fmt: skip
        others = rest or algorithm.SISA(sigma=sigma, rho=rho, lam=lam, second_moment=second_moment or Adam(), eps=eps)
        kinds = {"matrices": rule, "heads": rule if rest is None else others}
        super().__init__(params, others, kinds, lr=lr, shards=shards)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """See AdmmOptimizer; parameters without a "kind" become two groups, by their dimensions."""
        kind = param_group.get("kind")
        if kind is None:
            params = param_group["params"]
            named = [params] if isinstance(params, torch.Tensor) else list(params)
            dimensions = [(p[1] if isinstance(p, tuple) else p).ndim for p in named]
            for kind, some in (
                ("matrices", [p for p, n in zip(named, dimensions, strict=True) if n > 1]),
                ("vectors", [p for p, n in zip(named, dimensions, strict=True) if n < 2]),
            ):
                if some:
                    self.add_param_group({**param_group, "params": some, "kind": kind})
            return
        if kind not in NAMED:
            raise ConfigError(f"kind is {kind!r}, but it must be one of {', '.join(map(repr, NAMED))}.")
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if group.get("precision") == "auto":
            group["precision"] = "bfloat16" if group["params"][0].is_cuda else "float32"
