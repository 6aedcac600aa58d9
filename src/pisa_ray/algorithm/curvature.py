"""Second-order information about one shard's mini-batch loss at w, computed on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property

from pisa_ray.later import torch


class Curvature:
    """Hessian- and Gauss-Newton-vector products and sample gradients of a loss F(w) = criterion(outputs(w)).

    A graph is built at the first product of its kind and kept for all others, in about the memory of a backward pass.

    Args:
        w: The point, flat, [p].
        outputs: Flat w -> model outputs z on the mini-batch, [b, ...]; called again for each graph.
        criterion: z -> the mean loss, a scalar.
        sample_loss: (flat w, j) -> the loss of sample j by itself, a scalar.
        samples: b, the number of samples.
        generator: Draws random probes; HessianDiagonal needs one if it has probes.
    """

    def __init__(
        self,
        w: torch.Tensor,
        outputs: Callable[[torch.Tensor], torch.Tensor],
        criterion: Callable[[torch.Tensor], torch.Tensor],
        sample_loss: Callable[[torch.Tensor, int], torch.Tensor],
        samples: int,
        generator: torch.Generator | None = None,
    ) -> None:
        self._at, self.samples, self.generator = w, samples, generator
        self._outputs, self._criterion, self._sample_loss = outputs, criterion, sample_loss

    @cached_property
    def w(self) -> torch.Tensor:
        """The point, [p], as a leaf of the graph."""
        return self._at.detach().clone().requires_grad_()

    @cached_property
    def _z(self) -> torch.Tensor:
        with torch.enable_grad():
            return self._outputs(self.w)

    @cached_property
    def _gradient(self) -> torch.Tensor:
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(self._criterion(self._z), self.w, create_graph=True)
        return gradient

    def hessian(self, v: torch.Tensor) -> torch.Tensor:
        """Return (grad^2 F) v, [p], by differentiating <grad F, v>."""
        if not self._gradient.requires_grad:  # F is linear in w
            return torch.zeros_like(v)
        (product,) = torch.autograd.grad(self._gradient, self.w, v, retain_graph=True, materialize_grads=True)
        return product

    @cached_property
    def _output_graph(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        # Two derivatives that autograd can take again: J^T y as a function of y, and the loss gradient as one of z.
        with torch.enable_grad():
            y = torch.zeros_like(self._z, requires_grad=True)
            (jt_y,) = torch.autograd.grad(self._z, self.w, y, create_graph=True)
            z = self._z.detach().requires_grad_()
            (loss_gradient,) = torch.autograd.grad(self._criterion(z), z, create_graph=True)
        return y, jt_y, z, loss_gradient

    def gauss_newton(self, v: torch.Tensor) -> torch.Tensor:
        """Return J^T (d2 loss / dz2) J v, [p], which is never indefinite if the loss is convex in the outputs."""
        y, jt_y, z, loss_gradient = self._output_graph
        (j_v,) = torch.autograd.grad(jt_y, y, v, retain_graph=True)  # <J^T y, v> is linear in y with slope J v
        if not loss_gradient.requires_grad:
            return torch.zeros_like(v)
        (h_j_v,) = torch.autograd.grad(loss_gradient, z, j_v, retain_graph=True, materialize_grads=True)
        (product,) = torch.autograd.grad(self._z, self.w, h_j_v, retain_graph=True)
        return product

    def sample_gradients(self) -> Iterator[torch.Tensor]:
        """Yield each sample's gradient, [p], one forward and backward pass each."""
        for j in range(self.samples):
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(self._sample_loss(self.w, j), self.w)
            yield gradient
