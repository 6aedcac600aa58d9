"""Signs in a run's losses that the automatic start was misled: an explosion, and a loss that has turned."""

from __future__ import annotations

import math

from pisa_ray.trainer.manifest import Progress

#: A rise of the loss by so many times the first round's size, or so much where that is less than 1, is an explosion.
EXPLODED = 9.0

#: Losses are compared by their means over so many rounds, or this share of the run where that is more.
WINDOW, SHARE = 10, 0.05

#: A mean has turned if it is above the lowest by more than this share of it, and by so many standard errors.
RISE, ERRORS = 0.1, 4.0

#: By what sigma is multiplied then, and how often: a loss that rises at any sigma is not a matter of sigma.
FACTOR, MOST = 2.0, 4


def has_exploded(progress: Progress, loss: float) -> bool:
    """Whether the loss is far above the first round's.

    Args:
        progress: Before the round.
        loss: Its mean training loss.
    """
    first = progress.first_loss
    return progress.round > 0 and loss - first > EXPLODED * max(abs(first), 1.0)


def has_turned(losses: dict[str, float], loss: float, rounds: int) -> bool:
    """Whether the mean training loss has clearly risen, at the end of a window of rounds.

    A window that has turned is what later ones are compared with, so each rise is told once.

    Args:
        losses: What to remember of the rounds before; changed in place, empty at first.
        loss: The mean training loss of the round; not finite where nobody reported, which is passed over.
        rounds: Length of the run.
    """
    if not math.isfinite(loss):
        return False
    n, mean = losses.get("rounds", 0.0) + 1, losses.get("mean", 0.0)
    gap = loss - mean
    mean += gap / n
    squares = losses.get("squares", 0.0) + gap * (loss - mean)
    losses |= {"rounds": n, "mean": mean, "squares": squares}
    if n < max(WINDOW, SHARE * rounds):
        return False
    losses["rounds"] = losses["mean"] = losses["squares"] = 0.0
    error = math.sqrt(squares / (n - 1) / n)
    best, its_error = losses.get("best", math.inf), losses.get("best_error", 0.0)
    turned = mean - best > max(RISE * abs(best), ERRORS * math.hypot(error, its_error))
    if turned or mean < best:
        losses |= {"best": mean, "best_error": error}
    if not turned or losses.get("raised", 0.0) >= MOST:
        return False
    losses["raised"] = losses.get("raised", 0.0) + 1
    return True
