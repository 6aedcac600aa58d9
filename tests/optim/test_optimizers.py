"""What torch's users expect of an optimizer."""

from __future__ import annotations

import copy

import pytest
import torch
from small_nets import ALL, backward, batch, flat, net_of, saved, steps

from pisa_ray import NSISA, ConfigError, optim


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
