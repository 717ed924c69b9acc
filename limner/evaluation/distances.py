"""How far two sets of pictures are apart, how different the pictures of one set are, and which known one is nearest.

All are functions of features, one row per picture, float32 or float64; they compute in float64. Features of two sets
must come from one encoder with one preprocessing: nothing here can see that they do not.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Array = NDArray[numpy.float64]
    Kernel = Callable[[Array, Array], Array]

SIGMA = 10.0
"""The width of the Gaussian kernel in arXiv:2401.09603."""
GAUSSIAN_SCALE = 1000.0
"""What arXiv:2401.09603 multiplies its distance by, so that it is easier to read."""
_AT_ONCE = 1024
Name = TypeVar("Name", bound=Hashable)


# ------------------------------------------------------------------------------------------------------ two Gaussians
def frechet(a: Any, b: Any) -> float:
    """Returns the Fréchet distance of the Gaussians fitted to ``a`` [N, D] and ``b`` [M, D], 0 or more up to rounding.

    ``|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))``, arXiv:1706.08500 eq. 6, called FID for Inception features.
    The covariances are the unbiased ones (N - 1), as in the implementations whose numbers are published. Nothing is
    added to them, and they may be singular.

    The estimate is too large: by a term that falls like 1 / N and is another one for each model (arXiv:1911.07023), so
    that the less varied of two models can win by its smaller term alone. With no more pictures than D it is nearly all
    of the number: two sets of 30 pictures of one Gaussian with D = 32, tr(S) = 30 are 15 apart, not 0. Compare only
    distances of equal N and M, prefer :func:`kernel_distance` and :func:`gaussian_distance` for small sets.
    """
    a, b = both_features(a, b, least=2)
    return frechet_of(moments(a), moments(b))


def moments(x: Array) -> tuple[Array, Array]:
    """Returns the mean [D] and a factor R [min(N, D), D] of the covariance, ``R.T @ R``.

    R is made without the covariance itself: the root of a rounded zero would be 1e-8.
    """
    import numpy

    mean = x.mean(axis=0)
    return mean, numpy.linalg.qr(x - mean, mode="r") / numpy.sqrt(len(x) - 1)


def frechet_of(a: tuple[Array, Array], b: tuple[Array, Array]) -> float:
    """Returns the Fréchet distance of two results of :func:`moments`.

    The eigenvalues of ``S_a^(1/2) S_b S_a^(1/2)`` are the squared singular values of ``R_a @ R_b.T``.
    """
    import numpy

    (mean_a, root_a), (mean_b, root_b) = a, b
    trace_of_root = numpy.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    return float(((mean_a - mean_b) ** 2).sum() + (root_a**2).sum() + (root_b**2).sum() - 2 * trace_of_root)


# ------------------------------------------------------------------------------------------------------------ kernels
def kernel_distance(a: Any, b: Any) -> float:
    """Returns the squared maximum mean discrepancy of ``a`` [N, D] and ``b`` [M, D] under ``(x.y / D + 1)^3``.

    KID, arXiv:1801.01401 section 4, for Inception features; the unbiased estimator (Gretton et al. 2012, JMLR 13, eq.
    3: no pair of a picture with itself) over all pictures, where others take the mean over random subsets. For sets of
    one distribution it is 0 on average, so that half of such results are negative.
    """
    return mean_discrepancy(*both_features(a, b, least=2), cubic_kernel)


def gaussian_distance(a: Any, b: Any, sigma: float = SIGMA, *, diagonal: bool = False) -> float:
    """Returns 1000 times the squared maximum mean discrepancy under ``exp(-|x - y|^2 / (2 sigma^2))``.

    ``a`` [N, D] and ``b`` [M, D] are CLIP embeddings of unit norm (the caller sees to that): CMMD, arXiv:2401.09603.
    Without ``diagonal`` it is the unbiased estimator (Gretton et al. 2012, JMLR 13, eq. 3), 0 on average for sets of
    one distribution. With it each picture is also paired with itself, eq. 5 there, as the paper's own program does;
    that is larger by ``1000 * (mean of 1 - k within a) / N`` and the same of b: nothing for 30,000 pictures, for 50 as
    much as many a real difference, and more for the more varied model.

    On unit norm |x - y|^2 <= 4 is small beside 2 sigma^2 = 200, and the result is ``10 * |mu_a - mu_b|^2`` but for a
    few per cent: it sees the means of the sets and hardly their spread. Put :func:`diversity` beside it.
    """
    if not sigma > 0:
        raise ValueError(f"sigma is {sigma}; the width of the kernel must be above 0")
    kernel = partial(gaussian_kernel, sigma=sigma)
    return GAUSSIAN_SCALE * mean_discrepancy(*both_features(a, b, least=2), kernel, diagonal=diagonal)


def cubic_kernel(x: Array, y: Array) -> Array:
    """Returns ``(x.y / D + 1)^3`` [N, M] of each row of ``x`` [N, D] and each of ``y`` [M, D]."""
    products: Array = x @ y.T / x.shape[1] + 1
    return products**3


def gaussian_kernel(x: Array, y: Array, sigma: float) -> Array:
    """Returns ``exp(-|x - y|^2 / (2 sigma^2))`` [N, M] of each row of ``x`` [N, D] and each of ``y`` [M, D]."""
    import numpy

    squared = (x * x).sum(axis=1)[:, None] + (y * y).sum(axis=1) - 2 * (x @ y.T)
    kernel: Array = numpy.exp(numpy.maximum(squared, 0.0) / (-2 * sigma**2))
    return kernel


def mean_discrepancy(a: Array, b: Array, kernel: Kernel, *, diagonal: bool = False) -> float:
    """Returns the squared maximum mean discrepancy; ``diagonal`` also counts the pairs of a row with itself.

    It needs memory for 1,024 rows of the kernel matrix.
    """
    return _mean_within(a, kernel, diagonal) + _mean_within(b, kernel, diagonal) - 2 * _mean_across(a, b, kernel)


def _mean_within(x: Array, kernel: Kernel, diagonal: bool) -> float:
    count, total = len(x), 0.0
    for start in range(0, count, _AT_ONCE):
        block = kernel(x[start : start + _AT_ONCE], x)
        total += float(block.sum()) - (0.0 if diagonal else float(block.diagonal(start).sum()))
    return total / (count * count if diagonal else count * (count - 1))


def _mean_across(a: Array, b: Array, kernel: Kernel) -> float:
    sums = [float(kernel(a[start : start + _AT_ONCE], b).sum()) for start in range(0, len(a), _AT_ONCE)]
    return sum(sums) / (len(a) * len(b))


# --------------------------------------------------------------------------------------------------------- directions
def diversity(features: Any, groups: Sequence[Name]) -> tuple[float, dict[Name, float]]:
    """Returns the mean over groups of how different the pictures of a group are, and the number of each group.

    ``features`` is [N, D], ``groups`` names the group of each row, for instance its prompt. A group's number is the
    mean of ``1 - cosine`` over its pairs of pictures, in [0, 2]; 0: all point one way. Groups are of equal weight and
    in the order of their first pictures: resample their numbers, not the pictures.
    """
    rows = unit_rows(checked_features(features, "features", least=2), "features")
    if len(groups) != len(rows):
        raise ValueError(f"there are {len(rows)} rows of features and {len(groups)} names of groups")
    places: dict[Name, list[int]] = {}
    for place, name in enumerate(groups):
        places.setdefault(name, []).append(place)
    alone = [name for name, own in places.items() if len(own) < 2]
    if alone:
        raise ValueError(
            f"group {alone[0]!r} has one picture; how different pictures are needs two ({len(alone)} such)"
        )
    numbers = {name: _mean_cosine_distance(rows[own]) for name, own in places.items()}
    return sum(numbers.values()) / len(numbers), numbers


def _mean_cosine_distance(rows: Array) -> float:
    """Returns the mean of ``1 - x.y`` over the pairs of different rows [N, D] of unit norm.

    The N * N products add up to the squared norm of the rows' sum.
    """
    count = len(rows)
    total = float((rows.sum(axis=0) ** 2).sum()) - count
    return 1 - total / (count * (count - 1))


def nearest(features: Any, references: Any) -> tuple[NDArray[numpy.int64], Array]:
    """Returns for each row of ``features`` [N, D] the place of the nearest of ``references`` [M, D], and its cosine.

    Both are [N]; nearest is of the highest cosine, in [-1, 1]. With the training pictures as references, 1 is a picture
    known by heart, as far as the encoder can see.
    """
    import numpy

    rows, known = both_features(features, references, least=1, names=("features", "references"))
    rows, known = unit_rows(rows, "features"), unit_rows(known, "references")
    places, cosines = numpy.empty(len(rows), dtype=numpy.int64), numpy.empty(len(rows))
    for start in range(0, len(rows), _AT_ONCE):
        similarity = rows[start : start + _AT_ONCE] @ known.T
        places[start : start + _AT_ONCE] = similarity.argmax(axis=1)
        cosines[start : start + _AT_ONCE] = similarity.max(axis=1)
    return places, cosines.clip(-1.0, 1.0)


# ------------------------------------------------------------------------------------------------------------- checks
def both_features(a: Any, b: Any, *, least: int, names: tuple[str, str] = ("a", "b")) -> tuple[Array, Array]:
    """Returns both as :func:`checked_features`; raises ValueError where their rows are not of one length."""
    one, other = checked_features(a, names[0], least=least), checked_features(b, names[1], least=least)
    if one.shape[1] != other.shape[1]:
        raise ValueError(
            f"{names[0]} has {one.shape[1]} numbers a picture, {names[1]} {other.shape[1]}; both must be features of "
            "one encoder"
        )
    return one, other


def checked_features(features: Any, name: str, *, least: int) -> Array:
    """Returns [N, D] float64; raises ValueError unless it is that, finite, and N at least ``least``."""
    import numpy

    rows = numpy.asarray(features, dtype=numpy.float64)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ValueError(f"{name} is of shape {list(rows.shape)}; it must be [pictures, features]")
    if len(rows) < least:
        raise ValueError(f"{name} has {len(rows)} pictures; this needs at least {least}")
    bad = numpy.flatnonzero(~numpy.isfinite(rows).all(axis=1))
    if len(bad):
        raise ValueError(f"{name} has NaN or infinity in {len(bad)} of {len(rows)} rows, first in row {bad[0]}")
    return rows


def unit_rows(rows: Array, name: str) -> Array:
    """Returns the rows divided by their norms; raises ValueError where one is all zeros and so has no direction."""
    import numpy

    norms: Array = numpy.linalg.norm(rows, axis=1, keepdims=True)
    if not norms.all():
        raise ValueError(f"row {int(norms.argmin())} of {name} is all zeros; it has no cosine")
    return rows / norms
