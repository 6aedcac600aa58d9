"""The command line's words for what the library says in Python's: keys of the file for arguments, kinds for classes."""

from __future__ import annotations

import re

from pisa_ray.cli.config_baselines import FedAdamSection, FedAvgSection, FedProxSection, MOONSection, ScaffoldSection

#: For each key of the file the classes that its section stands for, with their kinds.
_SECTIONS: dict[str, dict[str, str]] = {
    "algorithm": {
        "PISA": "pisa",
        "SISA": "sisa",
        "NSISA": "nsisa",
        "SISAD": "sisa_d",
        "SyncOptimizer": "sync",
        "Groups": "grouped",
    }
    | {
        name: kind
        for section in (FedAvgSection, FedProxSection, ScaffoldSection, MOONSection, FedAdamSection)
        for kind, name in section.classes.items()
    },
    "sigma_schedule": {
        "Constant": "constant",
        "Geometric": "geometric",
        "Matched": "matched",
        "Shape": "shape",
        "Trapezoid": "trapezoid",
        "ResidualBalancing": "residual_balancing",
        "LagrangianDescent": "lagrangian_descent",
        "Plateau": "plateau",
        "OnlineK0": "online_k0",
    },
    "partition": {
        "IID": "iid",
        "LabelSkew": "labels_per_shard",
        "Dirichlet": "dirichlet",
        "QuantitySkew": "quantity",
        "ByColumn": "by_column",
        "ByFeature": "by_feature",
        "FeatureNoise": "feature_noise",
        "Indices": "indices",
    },
    "partition.distort": {"Noise": "noise", "ShiftLabels": "shift_labels", "Rotate": "rotate", "Recolour": "recolour"},
    "robust": {"TrimmedMean": "trimmed_mean", "Median": "median", "Clip": "clip"},
    "data": {"Data": "data"},
    "asynchronous": {"Asynchronous": "asynchronous"},
}

#: What else has another name in the file or on the command line; what comes first goes first.
_WORDS = {
    r"resume=True": "--resume",
    r"overwrite=True": "--overwrite",
    r"run_config": "--out",
    r"exact=False": "exact: false",
    r"scaling_config has at most (\d+) workers": r"workers is \1",
    r"the label selector of scaling_config": "worker_labels",
    r"scaling_config": "workers",
    r"checkpoint_score_attribute": "checkpoint.best_by",
    r"checkpoint_every": "checkpoint.every",
    r"stop_seconds": "stop.seconds",
    r"stop_test_accuracy": "stop.test_accuracy",
    r"ray_address": "ray.address",
    r"replay is": "asynchronous.replay is",
    r"algorithm\.lam": "algorithm.lambda",
    r"partition\.distortion": "partition.distort",
    r"partition\.distort is (\w+)": r"partition.distort.kind is \1",
    r"None": "null",
}

#: Quoted text is the user's, and so is what is part of a path.
_QUOTED = re.compile(r"""('[^']*'|"[^"]*")""")
_BEFORE, _BEHIND = r"(?<![\w/.-])", r"(?![\w/-])"


def spoken(text: str) -> str:
    """A sentence of the library's in the words of the command line.

    >>> spoken("runs/a holds a run already: use resume=True to go on with it, or another run_config.")
    'runs/a holds a run already: use --resume to go on with it, or another --out.'
    >>> spoken("Shape.warmup is -1, but SISAD forgets 'SISAD' in /data/SISAD/x.")
    "sigma_schedule.warmup is -1, but sisa_d forgets 'SISAD' in /data/SISAD/x."
    """
    parts = _QUOTED.split(text)
    parts[::2] = map(_spoken, parts[::2])
    return "".join(parts)


def _spoken(text: str) -> str:
    for section, kinds in _SECTIONS.items():
        for name, kind in kinds.items():
            text = re.sub(rf"{_BEFORE}{name}\.(?=[a-z])", f"{section}.", text)
            text = re.sub(rf"{_BEFORE}{name}{_BEHIND}", kind, text)
    for pattern, word in _WORDS.items():
        text = re.sub(rf"{_BEFORE}{pattern}{_BEHIND}", word, text)
    return text
