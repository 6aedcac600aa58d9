"""A rule for each group of parameters, an extension of the paper (docs/algorithm.md)."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar, Self

from pisa_ray import checks
from pisa_ray.algorithm.auto import Auto
from pisa_ray.algorithm.layout import Layout, Slot
from pisa_ray.algorithm.method import Steps
from pisa_ray.algorithm.methods.admm import Admm, AdmmRule, Member, prefixed, shared_settings
from pisa_ray.errors import ConfigError
from pisa_ray.fields import rule as rule_of
from pisa_ray.named import imported

#: Returns whether a parameter, given as its Slot, belongs to a group.
Selector = Callable[[Slot], bool]

#: The named groups; all other names are patterns of parameters' names, as in a shell.
NAMED: dict[str, Selector] = {
    "matrices": lambda slot: slot.matrix and not slot.head and not slot.flat,
    "embeddings": lambda slot: len(slot.shape) > 1 and not slot.matrix,
    "heads": lambda slot: slot.head,
    "vectors": lambda slot: len(slot.shape) < 2 or (slot.flat and not slot.head),
    "rest": lambda slot: True,
}


def _group(name: str, value: Any) -> Any:
    rule = value[1] if isinstance(value, tuple) and len(value) == 2 and callable(value[0]) else value
    return value if rule is None or isinstance(rule, AdmmRule) else checks.NOT


#: The value of a group: a rule, None for parameters that are not trained, or a selector with either.
Group = Annotated[
    AdmmRule | tuple[Selector, AdmmRule | None] | None,
    checks.Rule("a method such as SISAD(), None, or a function of a parameter with either", _group),
]


@dataclass(frozen=True, kw_only=True, eq=False)
class Groups(Admm):
    """A rule for each group of parameters, with its own numbers; the schedule moves all sigmas together.

    A parameter belongs to the first group that fits. NSISA() is the same as {"matrices": NSISA(rest=None), "rest":
    SISAD()}.

    Attributes:
        groups: The rules by group: "matrices" (of blocks), "embeddings", "heads" (the last linear layer), "vectors",
            "rest" (all), or a pattern of names of parameters such as "encoder.*". Parameters with None, in a file
            "frozen", in place of a rule are neither trained nor sent. Schedules and rows name the sigma of the first
            rule. In Python also under any name a pair (a function of the Slot of a parameter, the rule).
    """

    kind: ClassVar[str] = "grouped"

    groups: Annotated[Mapping[str, Group], checks.mapping(rule_of(Group), "a dictionary of rules by group")]
    reset_duals: bool = False
    local_steps: Steps = 1

    @classmethod
    def spelled(cls, values: dict[str, Any], path: str) -> dict[str, Any]:
        """See Options; `frozen` stands for None in place of a rule."""
        groups = values.get("groups")
        if not isinstance(groups, Mapping):
            return values
        for name, rule in groups.items():
            if not isinstance(name, str):
                raise ConfigError(f"the key {name} in {path}.groups is not text: write it in quotes.")
            if rule is None:
                raise ConfigError(f"{path}.groups.{name} is empty: give it a rule, or frozen.")
        stay = ("frozen", {"kind": "frozen"})

        def ruled(name: str, rule: Any) -> Any:
            if isinstance(rule, list) and len(rule) == 2 and isinstance(rule[0], str):
                key = f"{path}.groups.{name}"
                return imported(rule[0], key), None if rule[1] in stay else AdmmRule.read(rule[1], key)
            return None if rule in stay else rule

        return values | {"groups": {name: ruled(name, rule) for name, rule in groups.items()}}

    def written(self) -> Any:
        """See Options."""
        section = super().written()
        groups = section["groups"].items()
        return section | {
            "groups": {
                name: [rule[0], rule[1] or "frozen"] if isinstance(rule, list) else rule or "frozen"
                for name, rule in groups
            }
        }

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self._members:
            raise ConfigError("Groups.groups has no group with a rule, so nothing would be trained: give one a method.")
        for name, rule in self._members.items():
            shared_settings(rule, f"Groups.groups[{name!r}]")

    def _key(self) -> tuple[object, ...]:
        return tuple(self.groups.items()), self.reset_duals, self.local_steps

    def __eq__(self, other: object) -> bool:
        """Compare names and rules in their order, as the first group that fits decides."""
        return isinstance(other, Groups) and self._key() == other._key()

    def __hash__(self) -> int:
        """See __eq__."""
        return hash(self._key())

    @property
    def _members(self) -> dict[str, AdmmRule]:
        rules = {name: group[1] if isinstance(group, tuple) else group for name, group in self.groups.items()}
        return {name: rule for name, rule in rules.items() if rule is not None}

    @property
    def sigma(self) -> float | Auto:
        """The sigma of the first rule."""
        return next(iter(self._members.values())).sigma

    @property
    def vectors(self) -> int:
        """The largest number of vectors among the rules."""
        return max(rule.vectors for rule in self._members.values())

    def group_of(self, slot: Slot) -> str:
        """Return the name of a parameter's group.

        Raises:
            ConfigError: If the parameter is in no group.
        """
        for name in self.groups:
            if self._selects(name, slot):
                return name
        raise ConfigError(
            f"Groups.groups is {', '.join(self.groups)}, but the parameter {slot.name} {tuple(slot.shape)} is in none: "
            "add a group, such as 'rest'."
        )

    def _selects(self, name: str, slot: Slot) -> bool:
        """Return whether a group fits a parameter, whichever groups come before it."""
        group = self.groups[name]
        if not isinstance(group, tuple):
            kind = NAMED.get(name)
            return kind(slot) if kind else fnmatchcase(slot.name.replace("_orig_mod.", ""), name)  # from torch.compile
        try:
            selected = group[0](slot)
        except Exception as error:  # the user's function may raise anything
            raise ConfigError(
                f"Groups.groups[{name!r}] selects by a function that raises {type(error).__name__}: {error}, given the "
                f"parameter {slot.name} {tuple(slot.shape)}: let it return True or False for each."
            ) from error
        if not isinstance(checks.plain(selected), bool):
            raise ConfigError(
                f"Groups.groups[{name!r}] selects by a function that returns {checks.shown(selected)} for the "
                f"parameter {slot.name} {tuple(slot.shape)}: let it return True or False."
            )
        return bool(selected)

    def _empty(self, name: str, slots: Sequence[Slot]) -> ConfigError:
        """Return an error that says why a group has no parameter, and what to do."""
        taken = {self.group_of(slot): slot.name for slot in slots if self._selects(name, slot)}
        place = f"Groups.groups[{name!r}]"
        if taken:
            before, of = next(iter(taken.items()))
            remedy = "leave it out" if name == "rest" else f"put it before {before!r}, or leave it out"
            return ConfigError(
                f"{place} has no parameter left, as {', '.join(map(repr, taken))} before it have all, such as {of}: "
                f"{remedy}."
            )
        near = difflib.get_close_matches(name, [*NAMED, *(slot.name for slot in slots)], n=1)
        some = ", ".join(slot.name for slot in slots[:3])
        known = f"the nearest name is {near[0]!r}" if near else f"there are {some}, ..."
        return ConfigError(f"{place} has none of the parameters that are trained: {known}.")

    def frozen(self, layout: Layout) -> Collection[str]:
        """Return the names of the parameters whose group has no rule.

        Raises:
            ConfigError: If a group has no parameter, or a parameter no group.
        """
        slots = [slot for slot in layout.slots if slot.size]
        by_name = {slot.name: self.group_of(slot) for slot in slots}
        if empty := [name for name in self.groups if name not in by_name.values()]:
            raise self._empty(empty[0], slots)
        return [name for name, group in by_name.items() if group not in self._members]

    def rules(self) -> Mapping[str, AdmmRule]:
        """Return the rules of all groups."""
        found: dict[str, AdmmRule] = {}
        for name, rule in self._members.items():
            found |= prefixed(f"{name}.", rule.rules())
        return found

    def check(self, layout: Layout) -> None:
        """See Admm; also refuse a group whose rule moves parameters by its `rest` only."""
        super().check(layout)
        paths = {part.path for part in self.plan(layout).parts}
        for name, rule in self._members.items():
            if f"{name}." not in paths:
                raise ConfigError(
                    f"Groups.groups[{name!r}] has the rule {type(rule).__name__}, which would move none of its "
                    "parameters but by its rest, as none is a matrix of a block: give the group that rule, such as "
                    "SISAD()."
                )

    def with_numbers(self, found: Mapping[str, Any]) -> Self:
        """See Admm."""
        now, left = dict(self.groups), dict(found)
        for name, rule in sorted(self._members.items(), key=lambda item: -len(item[0])):  # "*.bias." is no key of "*."
            its = {key: left.pop(key) for key in list(left) if key.startswith(f"{name}.")}
            changed = rule.with_numbers({key.removeprefix(f"{name}."): value for key, value in its.items()})
            group = now[name]
            now[name] = (group[0], changed) if isinstance(group, tuple) else changed
        if left:
            raise KeyError(min(left))
        return replace(self, groups=now) if found else self

    def members(self, layout: Layout) -> Sequence[Member]:
        """Return the members of all groups' rules."""
        by_group: dict[str, list[Slot]] = {name: [] for name in self._members}
        for slot in layout.slots:
            if slot.size:
                by_group[self.group_of(slot)].append(slot)
        found: list[Member] = []
        for name, rule in self._members.items():
            lead, own = self.sigma, rule.sigma
            ratio = 1.0 if isinstance(lead, Auto) or isinstance(own, Auto) else own / lead
            for path, part_rule, its_ratio, slots in rule.members(Layout(tuple(by_group[name]))):
                found.append((f"{name}.{path}", part_rule, ratio * its_ratio, slots))
        return found
