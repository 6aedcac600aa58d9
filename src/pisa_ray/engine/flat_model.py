"""A model whose trainable parameters are views of one flat vector w, and its gradients of another."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import nn

from pisa_ray.algorithm import Layout
from pisa_ray.algorithm.layout import layout_of
from pisa_ray.engine.device import to_device, to_host
from pisa_ray.engine.files import Folder
from pisa_ray.engine.local_files import new_folder
from pisa_ray.engine.model_checks import check_trainable
from pisa_ray.engine.numerics import borrowed_tensor
from pisa_ray.engine.plain_names import COMPILED, plain_names
from pisa_ray.errors import ConfigError, PisaError


class FlatModel:
    """Wraps a module in place.

    Trainable parameters become float32 views of `parameters`; frozen ones keep their type and stay out of w; tied ones
    appear once. Persistent floating buffers become views of `buffers`: first running statistics (BatchNorm's, and all
    whose names begin with running_), which are averaged over shards, then `unaveraged` ones, such as the unit vectors
    of spectral_norm, of which the first shard's are taken. All others except BatchNorm's batch counters are `reset` to
    their first values, so that no forward pass leaves a trace in a worker.

    Args:
        module: The model, which is changed and owned by this object from now on.
        device: The device that it is moved to.
        frozen: Returns the names of trainable parameters that must not change, given the layout of all.

    Raises:
        ConfigError: If the module has no trainable parameter, or one that cannot be a part of w.
    """

    def __init__(
        self,
        module: nn.Module,
        device: torch.device | str = "cpu",
        frozen: Callable[[Layout], Collection[str]] | None = None,
    ) -> None:
        check_trainable(module)
        self.module = module.to(device)
        if frozen is not None:
            for name in frozen(layout_of(module)):
                module.get_parameter(name).requires_grad_(False)
            check_trainable(module)
        trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.layout = layout_of(module)
        self.parameters = torch.empty(self.layout.size, device=device, dtype=torch.float32)
        self.gradient = torch.zeros_like(self.parameters)
        self.w = self.parameters  # until a vector is loaded
        gradients = self.layout.views(self.gradient)
        for name, view in self.layout.views(self.parameters).items():
            view.copy_(trainable[name].detach())
            trainable[name].data = view
            trainable[name].grad = gradients[name]
        self._gradients = [(p, name, gradients[name], p.data_ptr()) for name, p in trainable.items()]
        saved = set(module.state_dict())
        persistent = {name: b for name, b in module.named_buffers() if name in saved}
        floating = {name: b for name, b in persistent.items() if b.is_floating_point()}
        floating = dict(sorted(floating.items(), key=lambda item: not _is_running(item[0])))
        self.unaveraged = sum(b.numel() for name, b in floating.items() if not _is_running(name))
        places = Layout.of((name, tuple(b.shape), False) for name, b in floating.items())
        self.buffers = torch.empty(places.size, device=device, dtype=torch.float32)
        for name, view in places.views(self.buffers).items():
            view.copy_(floating[name])
            floating[name].data = view
        self._named = {**dict(module.named_parameters()), **persistent}
        self._unaveraged_views = {
            name: view for name, view in places.views(self.buffers).items() if not _is_running(name)
        }
        self._counters = [b for name, b in persistent.items() if name.endswith("num_batches_tracked")]
        known = {id(b) for b in [*floating.values(), *self._counters]}
        self._constants = [(b, b.clone()) for b in self.module.buffers() if id(b) not in known]
        self._trainable = list(trainable.values())
        self._writes = (0, 0)

    def load(self, published: np.ndarray) -> torch.Tensor:
        """Take over a published vector: w, the floating buffers, the memory of the method, [p + b + e].

        Returns:
            The method's memory, [e], on the CPU. The attribute `w` is w, in memory that forward passes do not write to.
        """
        source = borrowed_tensor(published)
        p, b = self.layout.size, len(self.buffers)
        self.w, self._writes = to_device(source[:p], self.parameters.device), (-1, -1)
        self.go_to(self.w)
        self.buffers.copy_(source[p : p + b])
        return source[p + b :]

    def go_to(self, point: torch.Tensor) -> None:
        """Set the parameters to a point, [p], which costs nothing if they are at `w` already and stay there."""
        if point is self.w and self._writes == (self.versions(), self.parameters._version):
            return
        self.parameters.copy_(point)
        if point is self.w:
            self._writes = self.versions(), self.parameters._version

    def published(self) -> np.ndarray:
        """Return w and the floating buffers as one new array [p + b]."""
        return to_host(torch.cat([self.parameters, self.buffers]))

    def reset(self, batches: int) -> None:
        """Undo forward passes: set BatchNorm's counters to a number of batches, and constants to their first values."""
        for counter in self._counters:
            counter.fill_(batches)
        for buffer, first in self._constants:
            buffer.copy_(first)

    def versions(self) -> int:
        """Return a number that grows when a forward pass writes to a parameter (nn.Embedding with max_norm does)."""
        return sum(p._version for p in self._trainable)

    def check_views(self) -> None:
        """Check that forward and backward passes have left parameters and gradients in the flat vectors.

        Raises:
            PisaError: If they have not, as training would not reach the model.
        """
        for p, name, gradient, place in self._gradients:
            if p.grad is not gradient:
                raise PisaError(
                    f"model replaces the gradient of parameter {name} while it is trained (zero_grad(), .grad = ... or "
                    "an optimizer of its own), so that the parameter would never move: leave .grad alone; "
                    "torch.autograd.grad gives gradients without it."
                )
            if p.data_ptr() != place:
                raise PisaError(
                    f"model replaces the values of parameter {name} while it is trained (.data = ..., or .to(...)), so "
                    "that the parameter would never move: make what the model uses of it in forward, without a change "
                    "of the parameter."
                )

    def check_tensors(self) -> None:
        """Check that a forward pass has left the module's parameters and persistent buffers the same objects.

        Raises:
            PisaError: If it has not, as its new tensors would stay in this process.
        """
        now = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        for name, tensor in self._named.items():
            if now.get(name) is not tensor:
                raise PisaError(
                    f"model puts another tensor in the place of {name} in its forward pass, so that what it writes "
                    "would stay in one process: write in place, self.x.copy_(...), or self.x.mul_(0.9).add_(...)."
                )

    def unaveraged_buffers(self) -> dict[str, torch.Tensor]:
        """Return copies of the buffers that are not averaged, by name."""
        return {name: view.clone() for name, view in self._unaveraged_views.items()}

    def saved_tensors(self) -> dict[str, torch.Tensor]:
        """Return copies on the CPU of parameters (tied once) and persistent buffers, by plain names."""
        names = plain_names(self.module)
        named = [*self.module.named_parameters(), *((n, b) for n, b in self.module.named_buffers() if n in names)]
        return {names[name]: tensor.detach().cpu().clone().contiguous() for name, tensor in named}

    def save(self, path: Path) -> str:
        """Write `model.safetensors`, and `pretrained/` beside it if the model can, and return `weights_sha256`."""
        Folder(str(path.parent)).write(path.name, save(self.saved_tensors()))
        if hasattr(self.module, "save_pretrained"):
            with new_folder(path.with_name("pretrained")) as part:
                self.save_pretrained(part)
        return weights_sha256(self.module)

    def save_pretrained(self, path: Path) -> None:
        """Write a model of transformers as its from_pretrained reads it, in safetensors."""
        copies: dict[tuple[int, torch.Size, torch.dtype], torch.Tensor] = {}
        state, names = {}, plain_names(self.module)
        for name, tensor in self.module.state_dict().items():  # tied tensors stay tied, views of w become tensors
            place = tensor.data_ptr(), tensor.shape, tensor.dtype
            if place not in copies:
                copies[place] = tensor.cpu().clone().contiguous()
            state[names[name]] = copies[place]
        write: Any = self.module.save_pretrained
        write(path, state_dict=state)


def _is_running(name: str) -> bool:
    return name.rpartition(".")[2].startswith("running_")


def weights_sha256(module: nn.Module) -> str:
    """Hash a model: little-endian, row-major float32 bytes of named_parameters (tied once), then floating buffers.

    Buffers that a state_dict leaves out are left out here too, so that the hash can be recomputed from the saved file.
    """
    saved = set(module.state_dict())
    digest = hashlib.sha256()
    for tensor in [
        *(p for _, p in module.named_parameters()),
        *(b for name, b in module.named_buffers() if name in saved and b.is_floating_point()),
    ]:
        digest.update(tensor.detach().cpu().float().contiguous().numpy().astype("<f4", copy=False).data)
    return digest.hexdigest()


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a file written by FlatModel.save (or any safetensors file with the same names) into a module.

    Raises:
        ConfigError: If the file is missing or unreadable, or its names or shapes are not the module's.
    """
    if not path.is_file():  # reading a pipe, for example, would wait
        raise ConfigError(f"{path} is not a file: give a file saved by a run.")
    try:
        tensors = load_file(path)
    except Exception as error:  # safetensors raises its own types for damaged headers
        raise ConfigError(f"{path} cannot be read as safetensors ({error}): give a file saved by a run.") from error
    tensors = {name.replace(f"{COMPILED}.", ""): tensor for name, tensor in tensors.items()}
    names = plain_names(module)
    saved = set(names.values())
    own = {names[n]: t for n, t in [*module.named_parameters(), *module.named_buffers()] if n in names}
    missing, unknown = sorted(set(own) - set(tensors)), sorted(set(tensors) - saved)
    if missing or unknown:
        raise ConfigError(
            f"{path} does not fit the model: {len(missing)} tensors are missing ({', '.join(missing[:3]) or 'none'}), "
            f"{len(unknown)} are unknown ({', '.join(unknown[:3]) or 'none'}); use the model the file was saved from."
        )
    for name, tensor in own.items():
        if tensor.shape != tensors[name].shape:
            raise ConfigError(
                f"{path}: {name} has shape {tuple(tensors[name].shape)}, but the model's is {tuple(tensor.shape)}; "
                "use the model the file was saved from."
            )
        tensor.detach().copy_(tensors[name])
