"""What torch's users expect of an optimizer."""

from __future__ import annotations

import copy
import io
import re

import pytest
import torch
from safetensors.torch import load, save

from pisa_ray import NSISA, SISAD, Auto, ConfigError, optim
from pisa_ray.algorithm import AdaGrad, HessianDiagonal, RMSProp

ALL = (optim.PISA, optim.SISA, optim.SISAD, optim.NSISA)


def net_of(dtype=torch.float32):
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(1, 3, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(27, 5)
    return torch.nn.Sequential(*layers).to(dtype)


def batch(k, net):
    random = torch.Generator().manual_seed(k)
    x = torch.randn(7, 1, 5, 5, generator=random).to(next(net.parameters()).dtype)
    return x, torch.randint(5, (7,), generator=random)


def backward(net, k):
    x, y = batch(k, net)
    loss = torch.nn.functional.cross_entropy(net(x), y)
    loss.backward()
    return loss


def steps(net, optimizer, numbers):
    for k in numbers:
        optimizer.zero_grad()
        backward(net, k)
        if optimizer.shards > 1:
            for j in range(1, optimizer.shards):
                optimizer.report()
                backward(net, 100 * j + k)
            optimizer.report()
        optimizer.step()
    return flat(net)


def flat(net):
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()])


def saved(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer)  # weights only


def by_safetensors(state):
    """A state whose tensors have gone through safetensors, and whose groups through torch's own file."""
    tensors = {f"{i} {name}": t for i, its in state["state"].items() for name, t in its.items()}
    read = load(save({name: t.contiguous() for name, t in tensors.items()}))
    found = {i: {name: read[f"{i} {name}"] for name in its} for i, its in state["state"].items()}
    return {"state": found, "param_groups": saved(state["param_groups"])}


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("way", [copy.deepcopy, saved, by_safetensors])
def test_a_state_goes_on_to_the_bit(kind, dtype, shards, way):
    net = net_of(dtype)
    optimizer = kind(optim.groups(net), shards=shards)
    steps(net, optimizer, range(3))
    weights, state = copy.deepcopy(net.state_dict()), way(optimizer.state_dict())
    straight = steps(net, optimizer, range(3, 6))
    other = net_of(dtype)
    other.load_state_dict(weights)
    again = kind(optim.groups(other), shards=shards)
    again.load_state_dict(state)
    assert torch.equal(steps(other, again, range(3, 6)), straight)
    back = copy.deepcopy(net)
    back.load_state_dict(weights)
    optimizer.load_state_dict(state)  # and in mid-run
    net.load_state_dict(weights)
    assert torch.equal(steps(net, optimizer, range(3, 6)), straight)


@pytest.mark.parametrize("kind", ALL)
def test_a_copy_goes_on_to_the_bit(kind):
    net = net_of()
    optimizer = kind(optim.groups(net))
    steps(net, optimizer, range(3))
    other, again = copy.deepcopy((net, optimizer))
    assert torch.equal(steps(net, optimizer, range(3, 6)), steps(other, again, range(3, 6)))
    again.add_param_group({"params": [torch.nn.Parameter(torch.zeros(3))], "kind": "vectors"})


@pytest.mark.parametrize("kind", ALL)
def test_lr_is_a_factor_on_the_inverse_of_sigma(kind):
    net, other = net_of(), net_of()
    usual = {"rest": NSISA().rest.with_numbers({"sigma": 30.0, "rho": 570.0})} if kind is optim.NSISA else {}
    first = kind(optim.groups(net), **usual)
    second = kind(optim.groups(other), **usual, lr=0.25)
    for group in first.param_groups:
        group["sigma"] *= 4
        group["rho"] *= 4 if group["rule"] == "sisa_d" else 1  # there they go together
    assert torch.equal(steps(net, first, range(4)), steps(other, second, range(4)))


@pytest.mark.parametrize("kind", ALL)
def test_with_lr_0_parameters_stay_and_the_dual_goes_on(kind):
    net = net_of()
    optimizer, before = kind(net.parameters(), lr=0.0), flat(net)
    assert torch.equal(steps(net, optimizer, range(2)), before)
    assert all(
        state["dual_0"].abs().sum() > 0 and state["dual_0"].isfinite().all() for state in optimizer.state.values()
    )
    for group in optimizer.param_groups:
        group["lr"] = 1.0
    now = steps(net, optimizer, range(2, 4))
    assert now.isfinite().all()
    assert not torch.equal(now, before)


@pytest.mark.parametrize("kind", ALL)
def test_schedulers_of_torch_move_it(kind):
    net = net_of()
    optimizer = kind(optim.groups(net))
    warm = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: min(1.0, k / 3))
    moved = []
    for k in range(4):
        before = flat(net)
        moved.append(float((steps(net, optimizer, [k]) - before).abs().sum()))
        warm.step()
    assert moved[0] == 0 < moved[1] < moved[3]
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=5, cycle_momentum=False)
    for k in range(4):
        steps(net, optimizer, [k])
        cycle.step()
    assert all(0 < group["lr"] < 0.1 for group in optimizer.param_groups)
    assert flat(net).isfinite().all()


@pytest.mark.parametrize("kind", ALL)
def test_a_loss_falls(kind):
    net = net_of()
    optimizer = kind(optim.groups(net))
    first = backward(net, 0).item()
    steps(net, optimizer, [0] * 100)
    assert backward(net, 0).item() < first / 3


@pytest.mark.parametrize("kind", ALL)
def test_a_closure_is_called_once_with_gradients_on(kind):
    net, other = net_of(), net_of()
    optimizer, calls = kind(net.parameters()), []

    def closure():
        optimizer.zero_grad()
        calls.append(backward(net, 0))
        return calls[-1]

    with torch.no_grad():
        assert optimizer.step(closure) is calls[0]
    assert len(calls) == 1
    assert torch.equal(flat(net), steps(other, kind(other.parameters()), [0]))


def test_a_parameter_without_a_gradient_is_left_alone_and_takes_part_again():
    net = net_of()
    optimizer = optim.SISA(net.parameters(), lam=0.1)
    steps(net, optimizer, range(2))
    bias, kept = net[0].bias, copy.deepcopy(optimizer.state[net[0].bias])
    before = bias.detach().clone()
    optimizer.zero_grad()
    backward(net, 2)
    bias.grad = None
    optimizer.step()
    assert torch.equal(bias, before)
    assert all(torch.equal(kept[name], value) for name, value in optimizer.state[bias].items())
    assert optimizer.state[net[0].weight]["step"].tolist() == [3]
    steps(net, optimizer, range(3, 5))
    assert (optimizer.state[bias]["step"].item(), optimizer.state[net[0].weight]["step"].item()) == (4, 5)
    assert not torch.equal(bias, before)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (2, 0)])
def test_parameters_may_have_one_entry_or_none(kind, shape):
    p = torch.nn.Parameter(torch.ones(shape))
    optimizer = kind([p])
    for _ in range(2):
        p.grad = torch.ones(shape)
        optimizer.step()
    assert (p < 1).all()
    optimizer.load_state_dict(saved(optimizer.state_dict()))


def test_a_group_may_have_parameters_of_several_types():
    params = [torch.nn.Parameter(torch.ones(3, dtype=d)) for d in (torch.float32, torch.float64, torch.float16)]
    optimizer = optim.SISAD(params)
    for _ in range(3):
        for p in params:
            p.grad = torch.full_like(p, 0.5)
        optimizer.step()
    assert all(float(p.detach()[0]) == pytest.approx(params[1].detach()[0], abs=1e-3) for p in params)
    assert [str(optimizer.state[p]["dual_0"].dtype)[6:] for p in params] == ["float32", "float64", "float32"]


def test_loss_scaling_clipping_and_hooks_go_around_a_step():
    net = net_of()
    optimizer, scaler, seen = optim.SISAD(net.parameters()), torch.amp.GradScaler("cpu"), []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    before = flat(net)
    for spoilt in (False, True):
        optimizer.zero_grad()
        scaler.scale(torch.nn.functional.cross_entropy(net(batch(0, net)[0]), batch(0, net)[1])).backward()
        if spoilt:
            net[0].bias.grad[0] = float("inf")
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
    assert seen == ["before", "after"]
    assert flat(net).isfinite().all()
    assert not torch.equal(flat(net), before)


def test_gradients_of_zero_are_gradients():
    net = net_of()
    optimizer = optim.SISA(net.parameters())
    steps(net, optimizer, range(2))
    before = flat(net)
    optimizer.zero_grad(set_to_none=False)
    optimizer.step()  # the dual moves it on
    assert not torch.equal(flat(net), before)


def test_a_frozen_parameter_stays():
    net = net_of()
    net[0].bias.requires_grad_(requires_grad=False)
    for shards in (1, 2):
        optimizer, before = optim.NSISA(net.parameters(), shards=shards), net[0].bias.clone()
        steps(net, optimizer, range(2))
        assert torch.equal(net[0].bias, before)
        assert not optimizer.state[net[0].bias]


def test_a_parameter_that_no_shard_has_a_gradient_of_stays_and_one_that_some_have_moves():
    net, spare = net_of(), torch.nn.Parameter(torch.ones(3) / 3)
    optimizer, before = optim.SISAD([*net.parameters(), spare], lam=0.1, shards=3), flat(net)
    for k in range(3):
        backward(net, k)
        net[0].bias.grad = None if k != 1 else net[0].bias.grad
        optimizer.report()
    optimizer.step()
    assert torch.equal(spare, torch.ones(3) / 3)
    assert not torch.equal(net[0].bias, before[27:30])


def test_fewer_reports_than_shards_are_a_consensus_of_those():
    net, other = net_of(), net_of()
    four, two = optim.SISA(net.parameters(), shards=4), optim.SISA(other.parameters(), shards=2)
    for its, optimizer in ((net, four), (other, two)):
        for k in range(2):
            backward(its, k)
            optimizer.report()
        optimizer.step()
    assert torch.equal(flat(net), flat(other))
    backward(net, 3)
    four.step()  # without a report: one of shard 0
    assert [int(n) for n in four.state[net[0].bias]["step"]] == [2, 1, 0, 0]


def test_parameters_may_be_added_in_mid_run():
    net = net_of()
    optimizer = optim.NSISA(net[0].parameters())
    steps(net, optimizer, range(2))
    optimizer.add_param_group({"params": net[3].parameters(), "sigma": 50.0})
    assert [(group["kind"], group["sigma"], group["rule"]) for group in optimizer.param_groups[2:]] == [
        ("matrices", 50.0, "nsisa"),
        ("vectors", 50.0, "sisa_d"),
    ]
    before = net[3].weight.detach().clone()
    steps(net, optimizer, range(2, 4))
    assert not torch.equal(net[3].weight, before)
    assert (optimizer.state[net[3].weight]["step"].item(), optimizer.state[net[0].weight]["step"].item()) == (2, 4)


def test_numbers_of_a_group_may_change_in_mid_run():
    net, other = net_of(), net_of()
    changed, set_first = optim.SISAD(net.parameters(), rho=100.0), optim.SISAD(other.parameters())
    changed.param_groups[0]["rho"] = 2700
    assert torch.equal(steps(net, changed, range(3)), steps(other, set_first, range(3)))
    changed.param_groups[0]["rho"] = -1
    with pytest.raises(ConfigError, match="rho is -1"):
        steps(net, changed, [3])


def test_groups_are_what_the_parameters_are():
    net = torch.nn.Sequential(
        torch.nn.Embedding(9, 4), torch.nn.Linear(4, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 9)
    )
    found = {group["kind"]: group for group in optim.groups(net)}
    assert {kind: len(group["params"]) for kind, group in found.items()} == {
        "matrices": 1, "embeddings": 1, "heads": 1, "vectors": 4,
    }  # fmt: skip
    optimizer = optim.NSISA(optim.groups(net), lam=0.1)
    rules = {group["kind"]: (group["rule"], group["lam"]) for group in optimizer.param_groups}
    assert rules == {
        "matrices": ("nsisa", 0.1), "embeddings": ("sisa_d", 0.0), "heads": ("sisa_d", 0.0), "vectors": ("sisa_d", 0.0),
    }  # fmt: skip
    paper = {group["kind"]: group["rule"] for group in optim.NSISA(optim.groups(net), rest=None).param_groups}
    assert paper == {"matrices": "nsisa", "embeddings": "sisa", "heads": "nsisa", "vectors": "sisa"}


def test_a_short_parameter_moves_by_less_than_its_rounding_and_may_be_set_from_outside():
    p = torch.nn.Parameter(torch.full((4,), 256.0, dtype=torch.bfloat16))
    optimizer = optim.PISA([p], sigma=10.0, rho=0.0)
    for _ in range(30):  # 0.1 each, where neighbours are 1 apart below 256
        p.grad = torch.ones_like(p)
        optimizer.step()
    assert p[0].item() == 253
    assert float(optimizer.state[p]["master"][0]) == pytest.approx(253, abs=0.2)
    with torch.no_grad():
        p.fill_(1.0)
    p.grad = torch.zeros_like(p)
    optimizer.step()
    assert abs(p[0].item() - 1) < 0.2


@pytest.mark.parametrize("number", ["sigma", "rho"])
@pytest.mark.parametrize("kind", ALL)
def test_auto_is_refused_by_name(kind, number):
    with pytest.raises(ConfigError, match=rf"{kind.__name__}\.{number} is Auto\(\).*PisaTrainer"):
        kind(net_of().parameters(), **{number: Auto()})


REFUSED = {
    "sigma is -1": lambda p: optim.SISA(p, sigma=-1),
    "sigma is 0": lambda p: optim.SISA([{"params": p, "sigma": 0}]),
    "lr is -1": lambda p: optim.SISA(p, lr=-1),
    "lr is nan": lambda p: optim.SISA([{"params": p, "lr": float("nan")}]),
    "shards is 0": lambda p: optim.SISA(p, shards=0),
    "preconditioner is a HessianDiagonal": lambda p: optim.PISA(p, preconditioner=HessianDiagonal()),
    "rest is 3": lambda p: optim.NSISA(p, rest=3),
    "SISAD.sigma is Auto()": lambda p: optim.NSISA(p, rest=SISAD()),
    "kind is 'matrix'": lambda p: optim.NSISA([{"params": p, "kind": "matrix"}]),
    "weight_decay": lambda p: optim.SISA([{"params": p, "weight_decay": 0.1}]),
    "is complex": lambda p: optim.SISA([torch.nn.Parameter(torch.zeros(2, dtype=torch.complex64))]),
    "parameter second (2,) is complex": lambda p: optim.SISA(
        [
            ("first", torch.nn.Parameter(torch.zeros(2))),
            ("second", torch.nn.Parameter(torch.zeros(2, dtype=torch.complex64))),
        ]
    ),
    "(3,) is of a group of matrices": lambda p: optim.NSISA(
        [{"params": [torch.nn.Parameter(torch.zeros(3))], "kind": "matrices"}]
    ),
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_cannot_be_used_is_refused_in_a_sentence(said):
    with pytest.raises(ConfigError, match=re.escape(said)) as refused:
        REFUSED[said](list(net_of().parameters()))
    assert str(refused.value).endswith(".")


def test_a_sparse_gradient_is_refused_before_anything_moves():
    table = torch.nn.Embedding(5, 2, sparse=True)
    optimizer = optim.SISA(table.parameters())
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ConfigError, match=r"parameter number 0 \(5, 2\) is sparse"):
        optimizer.step()
    assert not optimizer.state


def test_reports_and_steps_out_of_turn_are_refused():
    net = net_of()
    optimizer = optim.SISA(net.parameters(), shards=2)
    for k in range(2):
        backward(net, k)
        optimizer.report()
        assert net[0].bias.grad is None
    with pytest.raises(ConfigError, match="shards is 2"):
        optimizer.report()
    with pytest.raises(ConfigError, match="after step"):
        optimizer.state_dict()
    backward(net, 2)
    with pytest.raises(ConfigError, match="no report"):
        optimizer.step()
    optimizer.zero_grad()
    optimizer.step()
    optimizer.state_dict()


def test_another_optimizers_state_is_refused():
    net = net_of()
    ours = optim.SISA(net.parameters())
    steps(net, ours, range(2))
    before = flat(net)
    adam = torch.optim.Adam(net.parameters())
    for state in (
        adam.state_dict(),
        optim.SISAD(net.parameters()).state_dict(),
        optim.SISA(net.parameters(), shards=2).state_dict(),
    ):
        with pytest.raises(ConfigError, match="the state is of"):
            ours.load_state_dict(state)
    larger = optim.SISA([torch.nn.Parameter(torch.ones(2, *p.shape)) for p in net.parameters()])
    for p in larger.param_groups[0]["params"]:
        p.grad = p.detach()
    larger.step()
    with pytest.raises(ConfigError, match=r"\(2, 3, 1, 3, 3\)"):
        ours.load_state_dict(larger.state_dict())
    assert torch.equal(flat(net), before)
    steps(net, ours, [2])


@pytest.mark.parametrize("moment", [RMSProp(0.9), AdaGrad()])
def test_second_moments_are_plain_in_groups(moment):
    net = net_of()
    optimizer = optim.SISA(net.parameters(), second_moment=moment, sigma=3.0)
    assert optimizer.param_groups[0]["second_moment"][0] == type(moment).__name__.lower()
    steps(net, optimizer, range(2))
    again = optim.SISA(net.parameters())
    again.load_state_dict(saved(optimizer.state_dict()))
    assert again.param_groups[0]["second_moment"] == optimizer.param_groups[0]["second_moment"]


def test_other_layouts_of_memory_have_the_same_bits():
    net, other = net_of(), net_of()
    other[0].weight.data = other[0].weight.data.transpose(2, 3).contiguous().transpose(2, 3)
    assert not other[0].weight.is_contiguous()
    with torch.no_grad():
        kinds = [optim.SISAD(n.parameters()) for n in (net, other)]
        for n, optimizer in zip((net, other), kinds, strict=True):
            for p in n.parameters():
                p.grad = torch.arange(p.numel(), dtype=torch.float32).reshape(p.shape)
            optimizer.step()
    assert torch.equal(flat(net), flat(other))
