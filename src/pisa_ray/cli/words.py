"""Translates messages for the command line: arguments become keys of the file, and classes become kinds."""

from __future__ import annotations

import re

from pisa_ray.data.distortions.distortion import Distortion
from pisa_ray.fields import annotated, inline, key_of, keys, members
from pisa_ray.kinds import Kind
from pisa_ray.options import Options
from pisa_ray.trainer.config import Config

#: For each key of the file, the family or the class that its section stands for.
_SECTIONS: dict[str, type[Options]] = {"partition.distort": Distortion} | {
    key_of(name, hint): member
    for name, hint in annotated(Config).items()
    for member in members(hint)
    if inline(hint) is None and isinstance(member, type) and issubclass(member, Options)
}

#: Other words and their translations, in the order in which they are replaced.
_WORDS = {
    r"resume=True": "--resume",
    r"overwrite=True": "--overwrite",
    r"trust=True": "--trust",
    r"run_config": "--out",
    r"exact=False": "exact: false",
    r"scaling_config has at most (\d+) workers": r"workers is \1",
    r"the label selector of scaling_config": "worker_labels",
    r"scaling_config": "workers",
    r"checkpoint_score_attribute": "checkpoint.best_by",
    **{name: key for key, name in keys(Config).items() if key != name},
    r"partition\.distortion": "partition.distort",
    r"partition\.distort is ([a-z]\w*)": r"partition.distort.kind is \1",
    r"a text": "text in quotes",
    r"a dictionary(?= of)": "a section",
    r"a dictionary": "a section of `key: value` lines",
    r"Auto\(\)": "auto or {hint: a number}",
    r"None": "null",
    r"True": "true",
    r"False": "false",
}

#: Quoted text is the user's and is not translated, nor are parts of a path.
_QUOTED = re.compile(r"""('[^']*'|"[^"]*")""")
#: A key that is no setting is the user's, too.
_BEFORE, _BEHIND = r"(?<![\w/.-])", r"(?![\w/-]| is not a setting)"


def spoken(text: str) -> str:
    """Return a sentence of the library in the words of the command line.

    >>> spoken("runs/a holds a run already: use resume=True to go on with it, or another run_config.")
    'runs/a holds a run already: use --resume to go on with it, or another --out.'
    >>> spoken("Shape.warmup is -1, but SISAD forgets 'SISAD' in /data/SISAD/x.")
    "sigma_schedule.warmup is -1, but sisa_d forgets 'SISAD' in /data/SISAD/x."
    """
    parts = _QUOTED.split(text)
    parts[::2] = map(_spoken, parts[::2])
    return "".join(parts)


def _spoken(text: str) -> str:
    for section, options in _SECTIONS.items():
        kinds = options.known() if issubclass(options, Kind) else {section: options}
        for kind, name in ((kind, one.__name__) for kind, one in kinds.items()):
            text = re.sub(rf"{_BEFORE}{name}\.(?=[a-z])", f"{section}.", text)
            text = re.sub(rf"{_BEFORE}{name}{_BEHIND}", kind, text)
    for pattern, word in _WORDS.items():
        text = re.sub(rf"{_BEFORE}{pattern}{_BEHIND}", word, text)
    return text
