"""Every setting with a wrong type or an impossible value is refused in one sentence, in the words of the file."""

import re
from pathlib import Path

import pytest

from pisa_ray.cli.config import load
from pisa_ray.cli.words import spoken
from pisa_ray.errors import ConfigError

SMALLEST = "data: {dataset: digits}\npartition: {kind: iid, shards: 2}\nmodel: {kind: mlp}\n"

WHOLE, COUNT, TEXT = "a whole number", "a whole number of at least 1", "text in quotes"
POSITIVE, NOT_NEGATIVE = "a finite number above 0", "a finite number of at least 0"
SHARE, DECAY = "a number of at least 0 and at most 1", "a number of at least 0 and below 1"
AUTO, NULL = " or auto or {hint: a number}", " or null"
LINES = "a section of `key: value` lines"

#: (what is set, its key, how it is shown, what it must be).
WRONG = [
    ("loss=5", "loss", "5", TEXT + NULL),
    ("metrics=5", "metrics", "5", TEXT + " or a list of at least one name" + NULL),
    ("metrics=[]", "metrics", "[]", TEXT + " or a list of at least one name" + NULL),
    ("name=5", "name", "5", TEXT + NULL),
    ("name=true", "name", "true", TEXT + NULL),
    ("name=[a]", "name", "['a']", TEXT + NULL),
    ("seed=x", "seed", "'x'", "a whole number of at least 0"),
    ("seed=-1", "seed", "-1", "a whole number of at least 0"),
    ("seed=1.5", "seed", "1.5", "a whole number of at least 0"),
    ("seed=9223372036854775808", "seed", "9223372036854775808", "below 2**63"),
    (
        "data=digits",
        "data",
        "'digits'",
        "a section with train, test, input, label, validation, scale, mean, std, transform, dtype and dataset",
    ),
    ("data.input=5", "data.input", "5", "text in quotes or a list of columns" + NULL),
    ("data.input=[5]", "data.input[0]", "5", TEXT),
    ("data.label=5", "data.label", "5", TEXT + NULL),
    (
        "data.validation=true",
        "data.validation",
        "true",
        "a number above 0 and below 1 or null, or a source such as data.test",
    ),
    ("data.scale=x", "data.scale", "'x'", "a finite number" + NULL),
    ("data.scale=.inf", "data.scale", "inf", "a finite number" + NULL),
    ("data.mean=[x]", "data.mean[0]", "'x'", "a finite number"),
    ("data.std=[1, x]", "data.std[1]", "'x'", POSITIVE),
    ("data.transform=5", "data.transform", "5", "a function or text in quotes" + NULL),
    ("data.dtype=half", "data.dtype", "'half'", "'float32' or 'int64'" + NULL),
    ("partition.shards=0", "partition.shards", "0", COUNT),
    ("partition.shards=ten", "partition.shards", "'ten'", COUNT),
    ("partition={kind: labels_per_shard, shards: 2, labels: 0}", "partition.labels", "0", COUNT),
    ("partition={kind: dirichlet, shards: 2, alpha: 0}", "partition.alpha", "0", POSITIVE),
    ("partition={kind: quantity, shards: 2, alpha: .inf}", "partition.alpha", "inf", POSITIVE),
    ("partition={kind: quantity, shards: 2, min_rows: 0}", "partition.min_rows", "0", COUNT),
    ("partition={kind: by_column, column: 5}", "partition.column", "5", TEXT),
    ("partition={kind: feature_noise, shards: 2, level: -1}", "partition.level", "-1", NOT_NEGATIVE),
    (
        "partition={kind: iid, shards: 2, distort: {kind: noise, level: -1}}",
        "partition.distort.level",
        "-1",
        NOT_NEGATIVE,
    ),
    (
        "partition={kind: iid, shards: 2, distort: {kind: shift_labels, share: 2}}",
        "partition.distort.share",
        "2",
        SHARE,
    ),
    (
        "partition={kind: iid, shards: 2, distort: {kind: rotate, step: .inf}}",
        "partition.distort.step",
        "inf",
        "a finite number",
    ),
    (
        "partition={kind: iid, shards: 2, distort: {kind: rotate, step: true}}",
        "partition.distort.step",
        "true",
        "a finite number",
    ),
    (
        "partition={kind: iid, shards: 2, distort: {kind: recolour, shards: 3}}",
        "partition.distort.shards",
        "3",
        "a list of shards such as [0, 1]" + NULL,
    ),
    (
        "partition={kind: iid, shards: 2, distort: {kind: shift_labels, shards: [-1]}}",
        "partition.distort.shards[0]",
        "-1",
        "a whole number of at least 0",
    ),
    ("partition={kind: by_feature, shards: 2, column: 5}", "partition.column", "5", TEXT + NULL),
    ("partition={kind: indices, shards: 5}", "partition.shards", "5", "a list with each shard's row numbers"),
    ("partition={kind: indices, shards: []}", "partition.shards", "[]", "a list with each shard's row numbers"),
    ("partition={kind: indices, shards: [[1], []]}", "partition.shards[1]", "[]", "a list of at least one row number"),
    (
        "partition={kind: indices, shards: [[true]]}",
        "partition.shards[0]",
        "[true]",
        "a list of at least one row number",
    ),
    ("model=mlp", "model", "'mlp'", "a section with kind, hidden, factory, args and weights"),
    ("model.kind=5", "model.kind", "5", TEXT + NULL),
    ("model.hidden=64", "model.hidden", "64", "a list" + NULL),
    ("model.hidden=[64, 0]", "model.hidden[1]", "0", COUNT),
    ("model.factory=5", "model.factory", "5", TEXT + NULL),
    ("model.args=5", "model.args", "5", LINES),
    ("model.weights=5", "model.weights", "5", TEXT + NULL),
    ("algorithm={kind: sisa, sigma: 0}", "algorithm.sigma", "0", "a number above 0 and at most 1e+30" + AUTO),
    ("algorithm={kind: sisa, sigma: -1e-3}", "algorithm.sigma", "-0.001", "a number above 0 and at most 1e+30" + AUTO),
    ("algorithm={kind: sisa, sigma: .nan}", "algorithm.sigma", "nan", "a number above 0 and at most 1e+30" + AUTO),
    ("algorithm={kind: sisa, sigma: .inf}", "algorithm.sigma", "inf", "a number above 0 and at most 1e+30" + AUTO),
    (
        "algorithm={kind: sisa, sigma: {hint: 0}}",
        "algorithm.sigma.hint",
        "0",
        "a number above 0 and at most 1e+30" + NULL,
    ),
    (
        "algorithm={kind: sisa, rho: {hint: -1}}",
        "algorithm.rho.hint",
        "-1",
        "a number above 0 and at most 1e+30" + NULL,
    ),
    ("algorithm={kind: sisa, sigma: true}", "algorithm.sigma", "true", "a number above 0 and at most 1e+30" + AUTO),
    ("algorithm={kind: sisa, sigma: one}", "algorithm.sigma", "'one'", "a number above 0 and at most 1e+30" + AUTO),
    ("algorithm={kind: sisa, rho: -1}", "algorithm.rho", "-1", "a number of at least 0 and at most 1e+30" + AUTO),
    ("algorithm={kind: sisa, beta: 1}", "algorithm.beta", "1", DECAY),
    ("algorithm={kind: sisa, eps: -1}", "algorithm.eps", "-1", "a number of at least 0 and at most 1e+30"),
    ("algorithm={kind: sisa, lambda: -1}", "algorithm.lambda", "-1", "a number of at least 0 and at most 1e+30"),
    (
        "algorithm={kind: sisa, second_moment: sgd}",
        "algorithm.second_moment.kind",
        "'sgd'",
        "one of adagrad, adam, instantaneous, rmsprop, or a class of yours as package.module:Class",
    ),
    (
        "algorithm={kind: nsisa, matrix_moment: x}",
        "algorithm.matrix_moment.kind",
        "'x'",
        "one of adagrad, adam, instantaneous, rmsprop, or a class of yours as package.module:Class",
    ),
    ("algorithm={kind: nsisa, mu: 1}", "algorithm.mu", "1", DECAY),
    ("algorithm={kind: nsisa, nesterov: 2}", "algorithm.nesterov", "2", "true or false"),
    ("algorithm={kind: nsisa, steps: -1}", "algorithm.steps", "-1", "a whole number of at least 0 and at most 1,000"),
    ("algorithm={kind: nsisa, perturbation: -1}", "algorithm.perturbation", "-1", DECAY),
    ("algorithm={kind: sisa_d, eps: 0}", "algorithm.eps", "0", "a number above 0 and at most 1e+30" + AUTO),
    ("algorithm={kind: sisa_d, beta: -1}", "algorithm.beta", "-1", DECAY),
    ("algorithm={kind: sisa_d, reset_duals: 3}", "algorithm.reset_duals", "3", "true or false"),
    (
        "algorithm={kind: sisa_d, local_steps: 0}",
        "algorithm.local_steps",
        "0",
        "a whole number of at least 1 and at most 1,000,000",
    ),
    (
        "algorithm={kind: sisa_d, local_steps: 1.5}",
        "algorithm.local_steps",
        "1.5",
        "a whole number of at least 1 and at most 1,000,000",
    ),
    ("algorithm={kind: sync, lr: 0}", "algorithm.lr", "0", "a number of at least 1e-30 and at most 1e+30"),
    (
        "algorithm={kind: sync, optimizer: 5}",
        "algorithm.optimizer",
        "5",
        "text in quotes or a class of torch.optim, not LBFGS or SparseAdam",
    ),
    ("algorithm={kind: sync, remember: 3}", "algorithm.remember", "3", "true or false"),
    ("algorithm={kind: sync, options: 5}", "algorithm.options", "5", LINES),
    ("algorithm={kind: fedavg, lr: -1}", "algorithm.lr", "-1", "a number of at least 1e-30 and at most 1e+30"),
    (
        "algorithm={kind: fedavg, steps: 0}",
        "algorithm.steps",
        "0",
        "a whole number of at least 1 and at most 1,000,000",
    ),
    ("algorithm={kind: fedavg, epochs: 0}", "algorithm.epochs", "0", "a number above 0 and at most 1e+06" + NULL),
    ("algorithm={kind: fedavg, momentum: 1}", "algorithm.momentum", "1", DECAY),
    ("algorithm={kind: fedprox, mu: -1}", "algorithm.mu", "-1", NOT_NEGATIVE),
    ("algorithm={kind: scaffold, server_lr: 0}", "algorithm.server_lr", "0", POSITIVE),
    ("algorithm={kind: moon, mu: -1}", "algorithm.mu", "-1", NOT_NEGATIVE),
    ("algorithm={kind: moon, temperature: 0}", "algorithm.temperature", "0", POSITIVE),
    ("algorithm={kind: fedadam, server_lr: 0}", "algorithm.server_lr", "0", POSITIVE),
    ("algorithm={kind: fedadam, beta1: 1}", "algorithm.beta1", "1", DECAY),
    ("algorithm={kind: fedyogi, beta2: -1}", "algorithm.beta2", "-1", DECAY),
    ("algorithm={kind: fedyogi, tau: 0}", "algorithm.tau", "0", "a number above 0 and at most 1e+15"),
    (
        "algorithm={kind: pisa, preconditioner: 5}",
        "algorithm.preconditioner",
        "5",
        "a section such as {kind: identity}",
    ),
    (
        "algorithm={kind: pisa, preconditioner: {kind: hessian_diagonal, probes: 0}}",
        "algorithm.preconditioner.probes",
        "0",
        "a whole number of at least 1 and at most 1,000,000" + NULL,
    ),
    (
        "algorithm={kind: pisa, preconditioner: {kind: hessian_diagonal, eta: 0}}",
        "algorithm.preconditioner.eta",
        "0",
        "a number above 0" + NULL,
    ),
    ("sigma_schedule={kind: geometric, gamma: 0}", "sigma_schedule.gamma", "0", "a number above 0 and at most 1"),
    ("sigma_schedule={kind: geometric, gamma: 2}", "sigma_schedule.gamma", "2", "a number above 0 and at most 1"),
    ("sigma_schedule={kind: geometric, k0: 0}", "sigma_schedule.k0", "0", COUNT),
    ("sigma_schedule={kind: trapezoid, cooldown: -1}", "sigma_schedule.cooldown", "-1", SHARE),
    ("sigma_schedule={kind: matched, growth: 0.5}", "sigma_schedule.growth", "0.5", "a finite number of at least 1"),
    (
        "sigma_schedule={kind: matched, rounds: 0}",
        "sigma_schedule.rounds",
        "0",
        "a whole number of at least 1 and at most 1,000,000,000" + NULL,
    ),
    ("sigma_schedule={kind: shape, name: 1}", "sigma_schedule.name", "1", TEXT),
    ("sigma_schedule={kind: shape, name: a, options: 1}", "sigma_schedule.options", "1", LINES),
    (
        "sigma_schedule={kind: shape, name: a, warmup: -1}",
        "sigma_schedule.warmup",
        "-1",
        "a whole number of at least 0",
    ),
    ("sigma_schedule={kind: online_k0, longer: 1}", "sigma_schedule.longer", "1", DECAY),
    ("sigma_schedule={kind: online_k0, shorter: -1}", "sigma_schedule.shorter", "-1", DECAY),
    ("sigma_schedule={kind: online_k0, length: 1}", "sigma_schedule.length", "1", "a whole number of at least 2"),
    ("sigma_schedule={kind: online_k0, share: 0}", "sigma_schedule.share", "0", "a number above 0 and at most 1"),
    ("sigma_schedule={kind: online_k0, most: 1}", "sigma_schedule.most", "1", "a finite number above 1"),
    ("sigma_schedule={kind: plateau, factor: 1}", "sigma_schedule.factor", "1", "a finite number above 1"),
    ("sigma_schedule={kind: plateau, most: 0}", "sigma_schedule.most", "0", "a finite number of at least 1"),
    ("sigma_schedule={kind: plateau, every: 0}", "sigma_schedule.every", "0", COUNT),
    ("sigma_schedule={kind: residual_balancing, ratio: 0}", "sigma_schedule.ratio", "0", POSITIVE),
    ("sigma_schedule={kind: lagrangian_descent, tolerance: -1}", "sigma_schedule.tolerance", "-1", NOT_NEGATIVE),
    ("sigma_schedule={kind: plateau, patience: 0}", "sigma_schedule.patience", "0", COUNT),
    ("sigma_schedule={kind: plateau, threshold: -1}", "sigma_schedule.threshold", "-1", NOT_NEGATIVE),
    ("sigma_schedule={kind: plateau, smoothing: 1}", "sigma_schedule.smoothing", "1", DECAY),
    ("rounds=0", "rounds", "0", COUNT + " and at most 1,000,000,000"),
    ("rounds=null", "rounds", "null", COUNT + " and at most 1,000,000,000"),
    ("rounds=true", "rounds", "true", COUNT + " and at most 1,000,000,000"),
    ("batch_size=half", "batch_size", "'half'", "a whole number of at least 1 or 'full' or null"),
    ("batch_size=0", "batch_size", "0", "a whole number of at least 1 or 'full' or null"),
    ("micro_batch_size=0", "micro_batch_size", "0", COUNT + NULL),
    ("clip_norm=0", "clip_norm", "0", POSITIVE + NULL),
    ("autocast=float16", "autocast", "'float16'", "true or false or 'bfloat16'"),
    ("shard_weights=equal", "shard_weights", "'equal'", "'size' or 'uniform'"),
    (
        "participation=0",
        "participation",
        "0",
        "a number above 0 and at most 1 or a list of the shards of each round, such as [[0, 1], [2, 3]]",
    ),
    (
        "participation=1.5",
        "participation",
        "1.5",
        "a number above 0 and at most 1 or a list of the shards of each round, such as [[0, 1], [2, 3]]",
    ),
    ("asynchronous=5", "asynchronous", "5", "a section with quorum, staleness, deadline and replay" + NULL),
    ("asynchronous.quorum=0", "asynchronous.quorum", "0", "a number above 0 and at most 1"),
    ("asynchronous.staleness=-1", "asynchronous.staleness", "-1", "a whole number of at least 0"),
    ("asynchronous.deadline=0", "asynchronous.deadline", "0", POSITIVE + NULL),
    ("asynchronous.replay=5", "asynchronous.replay", "5", "a path" + NULL),
    ("pin_to=bonn", "pin_to", "'bonn'", LINES + " such as {'site': ['lyon', 'bonn']}" + NULL),
    ("pin_to={site: bonn}", "pin_to.site", "'bonn'", "a list"),
    ("pin_to={site: [1, 2]}", "pin_to.site[0]", "1", TEXT + NULL),
    ("robust={kind: trimmed_mean, share: 0.5}", "robust.share", "0.5", "a number of at least 0 and below 0.5"),
    ("robust={kind: clip, factor: 0}", "robust.factor", "0", POSITIVE),
    ("evaluate_every=0", "evaluate_every", "0", COUNT),
    ("workers=-1", "workers", "-1", "a whole number of at least 0 and at most 1,000,000 or a section with min and max"),
    (
        "workers=two",
        "workers",
        "'two'",
        "a whole number of at least 0 and at most 1,000,000 or a section with min and max",
    ),
    ("workers={min: 0, max: 2}", "workers.min", "0", COUNT),
    ("workers={min: 3, max: 2}", "workers.min", "3 and workers.max 2", "a range whose max is at least its min"),
    ("threads_per_worker=0", "threads_per_worker", "0", COUNT + " and at most 1,024"),
    ("cpus_per_worker=-1", "cpus_per_worker", "-1", NOT_NEGATIVE),
    ("gpus_per_worker=-1", "gpus_per_worker", "-1", NOT_NEGATIVE),
    ("max_failures=-2", "max_failures", "-2", "a whole number of at least -1"),
    ("patience=-1", "patience", "-1", NOT_NEGATIVE),
    ("frozen_after=0", "frozen_after", "0", POSITIVE),
    ("worker_labels=3", "worker_labels", "3", "a section of node labels, such as {'zone': 'a'}"),
    ("resources_per_worker=3", "resources_per_worker", "3", "a section of Ray resources, such as {'gold': 1}"),
    ("accelerator=3", "accelerator", "3", TEXT + NULL),
    ("spread_workers=3", "spread_workers", "3", "true or false"),
    ("look_every=-1", "look_every", "-1", NOT_NEGATIVE),
    ("stop=5", "stop", "5", "a section with seconds and test_accuracy"),
    ("stop.seconds=0", "stop.seconds", "0", POSITIVE + NULL),
    ("stop.test_accuracy=97", "stop.test_accuracy", "97", "a number above 0 and at most 1" + NULL),
    ("checkpoint=5", "checkpoint", "5", "a section with every, keep, best_by, order and storage"),
    ("checkpoint.best_by=5", "checkpoint.best_by", "5", TEXT + NULL),
    (
        "checkpoint.storage=5",
        "checkpoint.storage",
        "5",
        "a URI such as s3://bucket/prefix; for a local or shared folder use --out",
    ),
    ("checkpoint.order=up", "checkpoint.order", "'up'", "'max' or 'min'"),
    ("algorithm={kind: nsisa, precision: half}", "algorithm.precision", "'half'", "'auto', 'float32' or 'bfloat16'"),
    ("algorithm={kind: nsisa, rest: 5}", "algorithm.rest", "5", "a section such as {kind: sisa_d}" + NULL),
    ("algorithm={groups: [sisa]}", "algorithm.groups", "['sisa']", "a section of rules by group"),
    ("algorithm={groups: {rest: 5}}", "algorithm.groups.rest", "5", "a section such as {kind: sisa_d}"),
    (
        "algorithm={groups: {rest: {kind: sisa, sigma: 0}}}",
        "algorithm.groups.rest.sigma",
        "0",
        "a number above 0 and at most 1e+30" + AUTO,
    ),
    ("compiled=5", "compiled", "5", "true or false" + NULL),
    ("exact=5", "exact", "5", "true or false"),
    ("checkpoint.every=0", "checkpoint.every", "0", COUNT + NULL),
    ("checkpoint.keep=0", "checkpoint.keep", "0", COUNT + NULL),
    ("ray=auto", "ray", "'auto'", "a section with address"),
    ("ray.address=5", "ray.address", "5", TEXT + NULL),
    ("algorithm=5", "algorithm", "5", "a section such as {kind: sisa_d} or null"),
    (
        "algorithm={kind: sisa_d, eps: {hint: 0}}",
        "algorithm.eps.hint",
        "0",
        "a number above 0 and at most 1e+30 or null",
    ),
    ("algorithm={kind: nsisa, matrix_moment: 5}", "algorithm.matrix_moment", "5", "a section such as {kind: adam}"),
    (
        "algorithm={kind: nsisa, matrix_moment: {kind: adam, beta: 1}}",
        "algorithm.matrix_moment.beta",
        "1",
        "a number of at least 0 and below 1",
    ),
    (
        "algorithm={kind: pisa, preconditioner: {kind: identity, q: -1}}",
        "algorithm.preconditioner.q",
        "-1",
        "a finite number of at least 0",
    ),
    ("algorithm={kind: sisa, second_moment: 5}", "algorithm.second_moment", "5", "a section such as {kind: adam}"),
    (
        "algorithm={kind: sisa, second_moment: {kind: adam, beta: 1}}",
        "algorithm.second_moment.beta",
        "1",
        "a number of at least 0 and below 1",
    ),
    ("partition=5", "partition", "5", "a section such as {kind: iid}"),
    ("partition={kind: iid, shards: 2, distort: 5}", "partition.distort", "5", "a section such as {kind: noise}"),
    (
        "partition={kind: iid, shards: 2, distort: {kind: shift_labels, classes: 0}}",
        "partition.distort.classes",
        "0",
        "a whole number of at least 1 or null",
    ),
    ("robust=5", "robust", "5", "a section such as {kind: median} or null"),
    ("sigma_schedule=5", "sigma_schedule", "5", "a section such as {kind: geometric} or null"),
]


@pytest.mark.parametrize(("setting", "key", "shown", "rule"), WRONG, ids=[setting for setting, *_ in WRONG])
def test_wrong_types_and_impossible_values(tmp_path: Path, setting: str, key: str, shown: str, rule: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(SMALLEST.replace("dataset: digits", "train: a") if key.startswith("data.") else SMALLEST)
    with pytest.raises(ConfigError) as caught:
        load(path, [setting])
    assert spoken(str(caught.value)) == f"{key} is {shown}, but it must be {rule}."


def test_the_table_has_every_key() -> None:
    from config_files import keys
    from every import FAMILIES

    from pisa_ray.trainer.config import Config

    tried = {re.sub(r"\[\d+\]", "", key) for _, key, _, _ in WRONG}
    of_kinds = tuple(f"{path}." for path in FAMILIES)  # a new one's are tried in test_every_kind.py
    missing = {key for key in keys(Config) if not key.startswith(of_kinds) and key != "model.kind"} - tried
    assert missing == {
        "workers.max",  # wrong only together with min
        "data.dataset",  # is refused with data.train
        "data.train",  # whatever can be opened, which shows when it is
        "data.test",
    }
