"""Shards that may not leave their site: which workers may host them, and where workers are to be started."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

#: The value of the node label at a site; None: everywhere else.
Site = str | None


class _AtSite(Protocol):
    """Anything that is at a site."""

    site: Site


M = TypeVar("M", bound=_AtSite)


@dataclass(frozen=True)
class Sites:
    """Where shards are pinned.

    Attributes:
        label: A node label.
        of: Its value where a shard is, by shard; the others may be anywhere.
    """

    label: str = ""
    of: Mapping[int, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.of)

    @property
    def names(self) -> list[str]:
        """The sites, sorted."""
        return sorted(set(self.of.values()))

    def selector(self, site: Site) -> dict[str, str]:
        """Return Ray's label selector for the nodes of a site."""
        if not self:
            return {}
        return {self.label: f"!in({', '.join(self.names)})" if site is None else site}

    def is_home(self, shard: int, site: Site) -> bool:
        """Return whether workers at a site may read a shard's rows."""
        return self.of.get(shard, site) == site

    def eligible(self, site: Site, members: Sequence[M]) -> list[M]:
        """Return the workers that may host the shards of a site; None: those elsewhere, or else any."""
        return [m for m in members if m.site == site] or (list(members) if site is None else [])

    def is_useful(self, site: Site, shards: Sequence[int]) -> bool:
        """Return whether a worker at a site can host some of these shards at home."""
        return any(self.is_home(i, site) for i in shards)

    def groups(self, shards: Sequence[int]) -> dict[Site, list[int]]:
        """Group shards by the site that they are pinned to.

        Example:
            >>> Sites("site", {0: "lyon", 2: "lyon", 3: "bonn"}).groups([0, 1, 2, 3])
            {'lyon': [0, 2], None: [1], 'bonn': [3]}
        """
        groups: dict[Site, list[int]] = {}
        for i in shards:
            groups.setdefault(self.of.get(i), []).append(i)
        return groups

    def openings(
        self, shards: Sequence[int], most: int, workers: Mapping[Site, int], room: Callable[[Site], int]
    ) -> list[Site]:
        """Return the sites at which workers can be started now: first those without any.

        A site that is away keeps its claim to a worker. Shards that may be anywhere have a claim to a worker elsewhere
        only if there may be more workers than sites.

        Args:
            shards: Those of the problem.
            most: Workers that there may be in all.
            workers: Those that there are or that are being started, by site.
            room: How many more workers the nodes of a site can hold.

        Returns:
            The site of each.

        Example:
            >>> sites = Sites("site", {0: "bonn", 1: "lyon", 2: "lyon"})
            >>> sites.openings([0, 1, 2], 3, {"lyon": 1}, {"bonn": 0, "lyon": 5}.__getitem__)
            ['lyon']
            >>> sites.openings([0, 1, 2], 2, {"lyon": 1}, {"bonn": 0, "lyon": 5}.__getitem__)  # the second is for bonn
            []
        """
        groups = self.groups(shards)
        anywhere = groups.pop(None, None)
        if anywhere and most > len(groups):
            groups[None] = anywhere
        have, free = Counter(workers), {site: room(site) for site in groups}
        opened: list[Site] = []
        spare = most - sum(max(have[site], 1) for site in groups)
        for site in groups:
            if not have[site] and free[site] > 0:
                opened.append(site)
                have[site] += 1
        while spare > 0:
            open_ = [s for s in groups if 0 < have[s] < min(len(groups[s]), workers.get(s, 0) + free[s])]
            if not open_:
                break
            site = max(open_, key=lambda s: len(groups[s]) / have[s])
            opened.append(site)
            have[site] += 1
            spare -= 1
        return opened[: max(most - sum(workers.values()), 0)]


#: No shard is pinned.
NOWHERE = Sites()
