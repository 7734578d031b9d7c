"""Power-function averages: their profiles, and other widths synthesised from them (Karras et al., 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from ..errors import SettingError

WIDEST = 0.2886751345  # width of the uniform profile, 1 / sqrt(12), just below


@dataclass(frozen=True)
class Profile:
    """The profile of a power-function average: p(t) = (gamma + 1) t ** gamma / end ** (gamma + 1) on [0, end].

    Attributes:
        exponent: gamma, at least 0; 0 is the uniform average.
        end: Number of updates.
    """

    exponent: float
    end: float


@dataclass(frozen=True)
class Synthesis:
    """A linear combination of averages that approximates a wanted profile.

    Attributes:
        coefficients: One per average; they sum to 1.
        correlation: Cosine of the angle between the combined and the target profile; 1 is exact.
    """

    coefficients: tuple[float, ...]
    correlation: float


def width_of(exponent: float) -> float:
    """Standard deviation of a profile relative to its end: sqrt(gamma + 1) / ((gamma + 2) sqrt(gamma + 3))."""
    return sqrt(exponent + 1) / ((exponent + 2) * sqrt(exponent + 3))


def exponent_of(width: float) -> float:
    """The exponent of the profile of a width: the inverse of `width_of`, for exponents of at least 0.

    Raises:
        SettingError: no such profile.
    """
    if not 0 < width <= WIDEST:
        raise SettingError(
            f"the width of a power-function average must be above 0 and at most {WIDEST:g}; got {width}."
        )
    # (g + 2)^2 (g + 3) = (g + 1) / width^2, with x = g + 2: x^3 + x^2 - x / width^2 + 1 / width^2 = 0.
    inverse = width**-2.0
    roots = np.roots([1.0, 1.0, -inverse, inverse])
    return max(float(roots[np.argmax(roots.real)].real) - 2, 0.0)


def synthesise(profiles: Sequence[Profile], width: float, end: float | None = None) -> Synthesis:
    """The combination of averages that is closest to the average of a width.

    Minimises || sum_i x_i p_i - p ||^2 over x with sum_i x_i = 1.

    Args:
        profiles: Those of the averages.
        width: Wanted width, relative to `end`.
        end: Number of updates at which the target average ends (default: the largest of the profiles).

    Raises:
        SettingError: there are no averages, or no profile has this width.

    Source: Karras et al., 2024. Analyzing and improving the training dynamics of diffusion models. arXiv:2312.02696

    Departures: the authors leave the sum of the coefficients free; here it is 1, so that a poor fit does not scale the
        weights. Of equally good solutions, that with the smallest norm is taken.
    """
    if not profiles:
        raise SettingError("no averages to synthesise from.")
    target = Profile(exponent_of(width), end or max(profile.end for profile in profiles))
    gram = np.array([[_inner(a, b) for b in profiles] for a in profiles])
    against = np.array([_inner(profile, target) for profile in profiles])
    solution = _solve_with_sum_one(gram, against)
    norm = sqrt(max(float(solution @ gram @ solution), 0.0) * _inner(target, target))
    return Synthesis(tuple(map(float, solution)), float(solution @ against) / norm)


def stepwise(steps: Sequence[int], width: float) -> Synthesis:
    """The average of a width from checkpoints, each of which stands for the steps since the one before.

    c_j = (t_j / T) ** (gamma + 1) - (t_(j-1) / T) ** (gamma + 1), t_0 = 0, T the last step. Of all profiles that are
    constant between checkpoints this is the closest; the correlation is that of this profile.

    Args:
        steps: Steps of the checkpoints, increasing.
        width: Relative to the last step.

    Raises:
        SettingError: no profile has this width, or there is no step above 0.
    """
    gamma = exponent_of(width)
    if not steps or steps[0] < 0 or steps[-1] <= 0:
        raise SettingError(f"a post-hoc average needs checkpoints at steps above 0; got {list(steps)}.")
    ends = np.array([0, *steps], float) / steps[-1]
    weights, lengths = np.diff(ends ** (gamma + 1)), np.diff(ends)
    own = np.divide(weights**2, lengths, out=np.zeros_like(weights), where=lengths > 0).sum()
    target = _inner(Profile(gamma, 1.0), Profile(gamma, 1.0))
    return Synthesis(tuple(map(float, weights)), sqrt(float(own) / target))


def _solve_with_sum_one(gram: np.ndarray, against: np.ndarray) -> np.ndarray:
    """Stationary point of the Lagrangian; the Gram matrix is scaled to the size of the constraint."""
    count, scale = len(gram), float(np.mean(np.diag(gram)))
    system = np.ones((count + 1, count + 1))
    system[:count, :count], system[count, count] = gram / scale, 0.0
    return np.linalg.lstsq(system, np.append(against / scale, 1.0), rcond=None)[0][:count]


def _inner(a: Profile, b: Profile) -> float:
    """The integral of the product of two profiles."""
    early, late = sorted((a, b), key=lambda profile: profile.end)
    ratio = (early.end / late.end) ** late.exponent
    return (a.exponent + 1) * (b.exponent + 1) * ratio / ((a.exponent + b.exponent + 1) * late.end)
