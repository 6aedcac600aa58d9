"""What lost shards are rebuilt from: the last states that are safe for sure, and exactly the rounds since."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pisa_ray.actors import snapshots
from pisa_ray.actors.calls import GoneError
from pisa_ray.actors.snapshots import RoundRecord, Snapshots
from pisa_ray.engine.reports import RoundSpec
from pisa_ray.errors import StatesLostError

HERE, AWAY = "here", "away"


class States:
    """A reference to states that are on their way, safe, or lost."""

    def __init__(self, by: str) -> None:
        self.by, self.is_there, self.is_lost = by, False, False


@pytest.fixture(autouse=True)
def references(monkeypatch):
    def answer(reference, doing):
        if reference.is_lost:
            raise GoneError("lost")
        return 1.0

    monkeypatch.setattr(snapshots, "answer", answer)
    monkeypatch.setattr(snapshots, "is_ready", lambda refs: all(r.is_there or r.is_lost for r in refs))


class Members:
    """Two workers, one of them on another node, and the consensus that copies what lies there."""

    def __init__(self) -> None:
        self.asked, self.copied = [], []
        self.all = [self._member("one", (0, 1), HERE), self._member("two", (2,), AWAY)]
        copy = SimpleNamespace(remote=lambda source: self._new(self.copied, f"copy of {source.by}"))
        self.consensus = SimpleNamespace(copy=copy)

    def _member(self, name, shards, node):
        def remote(asked):
            assert asked == shards
            return self._new(self.asked, name), States(name)

        call = SimpleNamespace(options=lambda num_returns: SimpleNamespace(remote=remote))
        return SimpleNamespace(shards=list(shards), node=node, stepped=0.0, actor=SimpleNamespace(snapshot=call))

    def _new(self, into, name):
        into.append(States(name))
        return into[-1]

    def snapshot(self, it, round_):
        """Have one taken; what its parts are at."""
        return [part.states for part in it.take(round_, self.all, self.consensus, HERE)]


def past(number):
    return RoundRecord(RoundSpec(number, 1.0 * number), f"w{number}", {0, 1, 2})


def after(rounds):
    it = Snapshots()
    for number in range(1, rounds + 1):
        it.remember(past(number))
    return it


def window(it):
    return [record.spec.number for record in it.window]


def test_before_the_first_there_are_initial_states_and_all_rounds():
    it = after(3)
    assert it.sources([0, 2]) == []
    assert window(it) == [1, 2, 3]


def test_one_counts_once_all_its_parts_are_safe_and_then_only_the_rounds_since_are_kept():
    it, members = after(3), Members()
    one, two = members.snapshot(it, 3)
    assert (one.by, two.by) == ("one", "copy of two")  # what lies on another node may be lost with it
    it.remember(past(4))
    it.remember(past(5))
    for there in ((), (one,), (one, two)):
        assert it.sources([0, 1, 2]) == []
        assert window(it) == [1, 2, 3, 4, 5]
        for states in there:
            states.is_there = True
        it.settle(None)
    assert it.round == 3
    assert it.sources([0, 1]) == [one]
    assert it.sources([0, 1, 2]) == [one, two]
    assert window(it) == [4, 5]


@pytest.mark.parametrize("lost", [0, 1])
def test_one_of_which_a_part_is_lost_never_counts_and_the_one_before_stays(lost):
    it, members = after(2), Members()
    first = members.snapshot(it, 2)
    for states in first:
        states.is_there = True
    it.settle(None)
    it.remember(past(3))
    second = members.snapshot(it, 3)
    second[lost].is_lost = second[1 - lost].is_there = True
    it.settle(None)
    assert (it.round, window(it)) == (2, [3])
    assert it.sources([0, 1, 2]) == first
    third = members.snapshot(it, 3)  # and another can be taken
    for states in third:
        states.is_there = True
    it.settle(None)
    assert it.sources([0, 1, 2]) == third


def test_what_has_not_happened_is_in_no_round_and_in_no_snapshot_on_its_way():
    it, members = after(3), Members()
    coming = members.snapshot(it, 3)
    it.forget([1])
    for states in coming:
        states.is_there = True
    it.settle(None)
    assert it.round == 0
    assert [record.reporters for record in it.window] == [{0, 2}] * 3


def test_one_at_a_time_is_on_its_way_and_the_next_is_due_after_a_period():
    it, members = after(20), Members()
    assert it.due(20)
    coming = members.snapshot(it, 20)
    assert not it.due(1000)
    for states in coming:
        states.is_there = True
    it.settle(None)
    assert [it.due(20 + rounds) for rounds in (0, 1, it.period - 1, it.period)] == [False, False, False, True]
    it.limit(3)
    assert it.due(23)


def test_shards_without_safe_states_are_lost_for_good_but_newcomers_have_initial_ones():
    it, members = after(3), Members()
    for states in members.snapshot(it, 3):
        states.is_there = True
    it.settle(None)
    with pytest.raises(StatesLostError, match=r"there is no snapshot of shards \[3\]"):
        it.sources([0, 3])
    it.joined.add(3)
    assert len(it.sources([0, 3])) == 1


def test_a_checkpoint_takes_the_place_of_all_and_is_replaced_soon():
    it, members = after(3), Members()
    coming = members.snapshot(it, 3)
    it.rest_on(2, {0: "stored", 1: "stored", 2: "stored"})
    for states in coming:
        states.is_there = True
    it.settle(None)
    assert (it.round, window(it), it.sources([0, 1, 2])) == (2, [], ["stored"])
    it.remember(past(3))
    assert it.due(3)
