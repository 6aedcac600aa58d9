"""Asynchronous rounds: when one ends, and the log from which a run can be repeated to the bit.

A round t begins with w^t. Every shard that is free begins a report at w^t, and never two at the same w. A long report
goes on while rounds end, and its message, with the penalty of its own round, enters the sum of the round in which it
arrives. Chance decides only which messages arrive in which round, so a log of that repeats the run: a report is a
function of the shard's state, w, sigma and the round in which it began.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Gt, Le

from pisa_ray import checks
from pisa_ray.engine.json_text import parse
from pisa_ray.engine.local_files import read_file
from pisa_ray.errors import ConfigError
from pisa_ray.fields import Positive
from pisa_ray.options import Options

#: (shard, version): a report of a shard that began at w^version.
Step = tuple[int, int]
#: The reports whose messages arrived in each round, in the order of arrival.
Arrivals = Mapping[int, Sequence[Step]]


@dataclass(frozen=True, kw_only=True)
class Asynchronous(Options):
    """When a round ends: when enough shards have reported, or a time is over, and no message that stands is too old.

    Attributes:
        quorum: The share of the shards whose messages a round waits for.
        staleness: tau: the message of a shard in the sum that makes w^{t+1} is from round t - tau or later; a shard
            whose last one is older is waited for. With 0 all shards report in every round.
        deadline: The seconds after which a round ends with the messages that have arrived, if there are any; None:
            there is no limit.
        replay: The arrivals.jsonl of a run with the same settings, which is repeated to the bit, with any number of
            workers; None: no run is repeated.
    """

    text: ClassVar[str] = "a rule such as Asynchronous(quorum=0.5)"

    quorum: Annotated[float, Gt(0), Le(1)] = 0.5
    staleness: Annotated[int, Ge(0)] = 10
    deadline: Positive | None = None
    replay: Annotated[str | None, checks.path | checks.nothing] = None

    def by_key(self) -> dict[str, Any]:
        """Override `Options.by_key`: the path is absolute, so that it is found from anywhere."""
        return super().by_key() | {"replay": None if self.replay is None else str(Path(self.replay).absolute())}

    def ends(self, round_: int, heard: Sequence[int], arrived: Collection[int], seconds: float) -> bool:
        """Return whether a round may end.

        Args:
            round_: The round t.
            heard: The round of each shard's last message, including those that have just arrived; 0: none yet.
            arrived: The shards that have reported since w^t.
            seconds: The seconds since the round began.

        Example:
            >>> rule = Asynchronous(quorum=0.5, staleness=2)
            >>> rule.ends(5, heard=[5, 5, 3, 4], arrived={0, 1}, seconds=0.1)
            True
            >>> rule.ends(5, heard=[5, 5, 2, 4], arrived={0, 1}, seconds=0.1)  # shard 2 is too old
            False
        """
        if any(version == 0 or round_ - version > self.staleness for version in heard):
            return False
        if len(arrived) >= math.ceil(self.quorum * len(heard)):
            return True
        return bool(arrived) and self.deadline is not None and seconds >= self.deadline


def read_arrivals(path: Path, shards: int, staleness: int) -> Arrivals:
    """Read the log of an asynchronous run, arrivals.jsonl in its run directory, to repeat it.

    Args:
        path: The file.
        shards: The number m of shards.
        staleness: The run's tau; an older message is refused.

    Raises:
        ConfigError: If there is no such file, or it is not the log of such a run.
    """
    found: dict[int, list[Step]] = {}
    last = [0] * shards
    try:
        lines = read_file(path).split(b"\n")[:-1]
        for line in map(parse, filter(bytes.strip, lines)):  # if a round has two lines, the later one counts
            if "changed" in line:
                raise ValueError(f"shards joined, left or were away after round {line['round']}")
            found[int(line["round"])] = [(int(shard), int(version)) for shard, version in line["steps"]]
        if found and {shard for shard, _ in found.get(1, [])} != set(range(shards)):
            raise ValueError(f"in round 1 not all of {shards} shards report")
        for round_, steps in sorted(found.items()):
            for shard, version in steps:
                if not (0 <= shard < shards and last[shard] < version <= round_ and round_ - version <= staleness):
                    raise ValueError(f"shard {shard} with a step at w of round {version} in round {round_}")
                last[shard] = version
    except OSError as error:
        raise ConfigError(
            f"Asynchronous.replay is {path}, but it cannot be read ({error.strerror}): give a run's arrivals.jsonl."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"Asynchronous.replay is {path}, but that is not the log of such a run ({error}): give the arrivals.jsonl "
            "of a run with the same shards and staleness."
        ) from error
    if not found or sorted(found) != list(range(1, len(found) + 1)):
        raise ConfigError(f"Asynchronous.replay is {path}, but rounds are missing in it: give the log of a whole run.")
    return found
