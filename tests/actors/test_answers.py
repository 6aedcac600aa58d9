"""What comes of an actor's answer: the answer, an error in the user's words, or that somebody is gone."""

from __future__ import annotations

import pytest
import ray
from ray.exceptions import GetTimeoutError, NodeDiedError, ObjectLostError, RayActorError, RayError, RayTaskError

from pisa_ray.actors.calls import GoneError, answer, how_lost
from pisa_ray.errors import NonFiniteError, PisaError


def of_a_task(cause):
    return RayTaskError("step", "a traceback", cause)


@pytest.fixture
def raised(monkeypatch):
    """Have the next answers be errors."""

    def set_to(error):
        def get(reference, timeout):
            assert timeout < 3600
            raise error

        monkeypatch.setattr(ray, "get", get)
        monkeypatch.setattr(ray, "wait", lambda references, **_: (references, []))

    return set_to


def test_an_answer_is_an_answer(monkeypatch):
    monkeypatch.setattr(ray, "get", lambda reference, timeout: reference)
    assert answer(5, "step") == 5


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (of_a_task(PisaError("shard 3: KeyError")), "^shard 3: KeyError$"),
        (of_a_task(KeyError("x")), r"^a worker failed to step: KeyError\('x'\)$"),
        (of_a_task(MemoryError()), r"^a worker failed to step: MemoryError\(\)$"),
        (RayError("odd"), "^Ray failed to have a worker step: odd$"),
    ],
)
def test_an_error_is_told_and_is_no_loss(raised, error, sentence):
    raised(error)
    with pytest.raises(PisaError, match=sentence):
        answer("a reference", "step")
    assert how_lost("a reference") is None


def test_an_error_keeps_its_kind(raised):
    raised(of_a_task(NonFiniteError("it is not finite")))
    with pytest.raises(NonFiniteError, match=r"^it is not finite$"):
        answer("a reference", "step")


@pytest.mark.parametrize(
    ("error", "direct"),
    [
        (RayActorError(), True),
        (NodeDiedError("gone"), False),
        (ObjectLostError("0" * 56, None, ""), False),
        (GetTimeoutError("too long"), False),
        (of_a_task(RayActorError()), False),  # what the call needed was another's
        (of_a_task(ObjectLostError("0" * 56, None, "")), False),
    ],
)
def test_a_loss_is_told_from_an_error(raised, error, direct):
    raised(error)
    with pytest.raises(GoneError) as caught:
        answer("a reference", "step")
    assert caught.value.direct is direct
    assert how_lost("a reference").direct is direct


def test_what_is_not_there_yet_is_not_lost(raised, monkeypatch):
    raised(RayActorError())
    monkeypatch.setattr(ray, "wait", lambda references, **_: ([], references))
    assert how_lost("a reference") is None
