"""Groups of modalities: who is superior and who is inferior."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, TypeAlias, get_args

import numpy as np

from awc_balance.checks import check_by_modality, check_numbers
from awc_balance.preserve import same_random_state

Group: TypeAlias = Literal["superior", "inferior"]
Grouping: TypeAlias = Callable[[Mapping[str, float]], Mapping[str, Group]]


def kmeans_groups(contributions: Mapping[str, float]) -> dict[str, Group]:
    """Split modalities in two by K-means on their contributions; the cluster with the higher mean is superior.

    AWC, arXiv 2501.05264, Section 3.3. Where nobody stands out, because there is one modality or all contributions
    are equal, all are inferior.

    Args:
        contributions: By modality, finite.

    Returns:
        "superior" or "inferior" by modality.

    Raises:
        TypeError: If it is not a mapping to numbers.
        ValueError: If a contribution is not finite.

    Example:
        >>> kmeans_groups({"rgb": 0.41, "lidar": 0.38, "mmwave": 0.07, "wifi": 0.01})
        {'rgb': 'superior', 'lidar': 'superior', 'mmwave': 'inferior', 'wifi': 'inferior'}
    """
    with same_random_state():
        from sklearn.cluster import KMeans  # here, because its import takes about as long as torch's

    values = np.array(list(check_numbers("contributions", contributions, contributions).values()))
    if len(np.unique(values)) < 2:
        return dict.fromkeys(contributions, "inferior")
    values = (values - values.min()) / (values.max() - values.min())  # or values close together count as one
    levels = np.unique(values)
    # One start from each split of the sorted values: random starts can all end in a split that is not the best.
    starts = [[[levels[:cut].mean()], [levels[cut:].mean()]] for cut in range(1, len(levels))]
    fits = [KMeans(2, init=np.array(start), n_init=1).fit(values.reshape(-1, 1)) for start in starts]
    best = min(fits, key=lambda fit: fit.inertia_)
    superior = best.cluster_centers_.argmax()
    return {
        m: "superior" if label == superior else "inferior" for m, label in zip(contributions, best.labels_, strict=True)
    }


def check_groups(groups: Mapping[str, Group], modalities: Iterable[str]) -> dict[str, Group]:
    """The groups that a rule gave, in the order of the modalities.

    Raises:
        TypeError: If it gave anything but a mapping.
        ValueError: If it left out a modality, or named another group.
    """
    modalities = list(modalities)
    check_by_modality("grouping", groups, modalities)
    for modality in modalities:
        if groups[modality] not in get_args(Group):
            raise ValueError(
                f"`grouping` should call each modality 'superior' or 'inferior'. Got {groups[modality]!r} for "
                f"`{modality}`. Return one of the two words."
            )
    return {modality: groups[modality] for modality in modalities}
