"""cluster.yaml by Ray's own schema, without a cloud, and what makes it safe."""

from __future__ import annotations

import copy
import re
import tomllib

import pytest
import yaml
from jsonschema import ValidationError
from local import ROOT
from ray.autoscaler._private.util import prepare_config, validate_config

FILE = ROOT / "cluster.yaml"


@pytest.fixture
def config():
    return yaml.safe_load(FILE.read_text())


def check(config):
    validate_config(prepare_config(copy.deepcopy(config)))


def starts(config):
    return {kind: " ; ".join(config[f"{kind}_start_ray_commands"]) for kind in ("head", "worker")}


def test_ray_accepts_it(config):
    check(config)


def broken(change):
    config = yaml.safe_load(FILE.read_text())
    change(config)
    return config


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(max_worker=8),
        lambda c: c["available_node_types"]["gpu"].update(spot=True),
        lambda c: c["available_node_types"]["gpu"].pop("resources"),
        lambda c: c["available_node_types"]["gpu"].update(min_workers="1"),
        lambda c: c["available_node_types"]["gpu"].update(min_workers=99, max_workers=99),
        lambda c: c.update(head_node_type="heads"),
    ],
    ids=["unknown key", "unknown key of a type", "no resources", "text", "more than max_workers", "no such head"],
)
def test_ray_refuses_broken_copies(change):
    with pytest.raises((ValueError, ValidationError)):
        check(broken(change))


def test_every_node_wants_the_token_and_gets_it_privately(config):
    for command in starts(config).values():
        for start in re.findall(r"[^;]*ray start[^;]*", command):
            assert "RAY_AUTH_MODE=token" in command.split(start)[0]
    token = "~/.ray/auth_token"  # noqa: S105 - where it is, not what it is
    assert config["file_mounts"][token] == token
    assert "RAY_AUTH_MODE=token" in " ".join(config["setup_commands"])  # for commands on the head by hand
    assert "RAY_AUTH_TOKEN=" not in FILE.read_text()  # environments are seen by more eyes than files


def test_the_dashboard_is_on_localhost_and_no_port_is_opened(config):
    head = starts(config)["head"]
    assert re.findall(r"--dashboard-host=(\S+)", head) == ["127.0.0.1"]
    assert "0.0.0.0" not in FILE.read_text()  # noqa: S104
    assert "security_group" not in config["provider"]  # Ray's own lets in ssh and members of the group
    for node in config["available_node_types"].values():
        assert node["node_config"]["MetadataOptions"] == {"HttpTokens": "required"}


def test_workers_are_spot_within_bounds_and_the_head_is_not(config):
    types = config["available_node_types"]
    gpu, head = types["gpu"], types[config["head_node_type"]]
    assert gpu["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert 0 <= gpu["min_workers"] < gpu["max_workers"] <= config["max_workers"]
    assert gpu["resources"]["GPU"] == 1
    assert "InstanceMarketOptions" not in head["node_config"]
    assert head["resources"] == {"CPU": 0}
    assert config["idle_timeout_minutes"] <= 10


def test_dead_nodes_are_noticed_in_seconds_and_jobs_have_time_to_stop(config):
    values = dict(re.findall(r"RAY_(\w+)=(\d+)", starts(config)["head"]))
    threshold, period, timeout = (
        int(values[f"health_check_{name}"]) for name in ("failure_threshold", "period_ms", "timeout_ms")
    )
    assert threshold * period <= 5_000
    assert threshold * (period + timeout) <= 10_000
    assert int(values["JOB_STOP_WAIT_TIME_S"]) >= 60


def test_spot_notices_are_watched_for_by_a_script_that_is_shipped(config):
    (watch,) = [command for command in config["worker_start_ray_commands"] if "spot_drain" in command]
    (script,) = re.findall(r"~/pisa_ray/(\S+\.py)", watch)
    assert (ROOT / script).is_file()
    assert watch.rstrip().endswith("&")
    assert config["file_mounts"]["~/pisa_ray/tools"] == "tools"


def test_what_is_copied_exists_and_is_enough_to_install(config):
    copied = {local for local in config["file_mounts"].values() if not local.startswith("~")}
    for path in copied:
        assert (ROOT / path).exists()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"src", "pyproject.toml", project["readme"], *project["license-files"]} <= copied
    install = " ".join(config["setup_commands"])
    for name in ("torch", "torchvision", r"ray\[default,train,tune\]"):
        assert re.search(rf"{name}==\d", install), f"{name} is not pinned"
    assert "~/pisa_ray" in install
