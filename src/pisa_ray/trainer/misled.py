"""Signs in the losses of a run that the automatic start set a wrong sigma: an explosion, and a loss that has turned."""

from __future__ import annotations

import math

from pisa_ray.trainer.manifest import Progress

#: A loss has exploded if it has risen by so many times the first round's, or by so much if that is less than 1.
EXPLODED = 9.0

#: Losses are compared by their means over a window of so many rounds, or this share of the run if that is more.
WINDOW, SHARE = 10, 0.05

#: A loss has turned if its mean is above the lowest by more than this share of it and by so many standard errors.
RISE, ERRORS = 0.1, 4.0

#: Sigma is multiplied by this factor then, at most so often: a loss that keeps rising has another cause.
FACTOR, MOST = 2.0, 4


def has_exploded(progress: Progress, loss: float) -> bool:
    """Return whether the loss is far above that of the first round.

    Args:
        progress: The progress before the round.
        loss: The mean training loss of the round.
    """
    first = progress.first_loss
    return progress.round > 0 and loss - first > EXPLODED * max(abs(first), 1.0)


def has_turned(losses: dict[str, float], loss: float, rounds: int) -> bool:
    """Return whether the mean training loss has clearly risen, at the end of a window of rounds.

    Later windows are compared with the one that has turned, so each rise counts once.

    Args:
        losses: Statistics of the rounds before, empty at first; they are changed in place.
        loss: The mean training loss of the round; one that is not finite, as no shard reported, is skipped.
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
