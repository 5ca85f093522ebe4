"""Which runs stand behind each table and figure: rows of changes to common settings, and the runs they need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from examples.mmfi.conventions import MODALITIES
from examples.mmfi.methods import part, table_options
from examples.mmfi.models import DECISION, HPE_LI, METAFI, X_FI
from examples.mmfi.reproduce import published
from examples.mmfi.reproduce.published import Errors
from examples.mmfi.settings import AWC, METHODS, PAPER_AWC, PLAIN, Settings

SYSTEMS: Mapping[str, Mapping[str, Any]] = {
    "MM-Fi baseline": {"fusion": DECISION},
    "X-Fi": {"fusion": X_FI},
    "HPE-Li (published: x, y only)": {"modalities": ("wifi",), "wifi_encoder": HPE_LI},
}
"""The other systems of Table 1, as changes of the common settings."""
WINDOW_SHARES = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Learning windows of Figure 6 as shares of the epochs; 0.4 is the paper's best, 20 of 50."""

Change = Mapping[str, Any]
"""Fields of `Settings` that differ from the common ones."""


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        label: What it says.
        change: Of the common settings; None for a row without runs.
        baseline: The change that it is compared with, seed by seed; None for no comparison.
        published: The paper's errors by protocol.
        absent: Why there are no runs.
        most_seeds: Do no more runs of this row than that.
    """

    label: str
    change: Change | None = None
    baseline: Change | None = None
    published: Mapping[str, Errors] = field(default_factory=dict)
    absent: str = ""
    most_seeds: int | None = None


@dataclass(frozen=True)
class Plan:
    """A table or figure.

    Attributes:
        title: What it shows.
        rows: The kinds of run.
        protocols: To run in, unless others are asked for.
        note: What else a reader needs to know.
        carriers: Show who carries the prediction of the row without changes: all modalities, trained plainly.
    """

    title: str
    rows: tuple[Row, ...]
    protocols: tuple[str, ...] = ("P1",)
    note: str = ""
    carriers: bool = False


def awc(epochs: int, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    """The settings of AWC as in the paper, with a window that is as large a part of the run as there.

    >>> awc(10, alpha_inferior=0.0)["method_options"]
    {'alpha_superior': 20000.0, 'alpha_inferior': 0.0, 'window': 4}
    """
    return balanced(AWC, epochs, **changes)


def balanced(method: str, epochs: int, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    """The settings of a method as in Table 1, with other options where they are given."""
    options = {**table_options(method, epochs), **changes}
    return {"method": method, "method_options": options} if options else {"method": method}


def table1(epochs: int) -> Plan:
    """Other systems, and methods by fusion."""
    rows = [Row(name, SYSTEMS[name], published=errors) for name, errors in published.SYSTEMS.items()]
    for fusion in published.METHODS:
        rows += _of_fusion(fusion, epochs)
    note = (
        "Differences are to the same fusion trained plainly. HPE-Li is published with the error of x and y only, which "
        "is not comparable; here all is scored on x, y and z. Other methods and systems are readings of their papers, "
        "with their own papers' strengths, none tuned on this data."
    )
    return Plan("Table 1: methods", tuple(rows), ("P1", "P2", "P3"), note)


def _of_fusion(fusion: str, epochs: int) -> list[Row]:
    """Plain training of a fusion and every method with it, those that the paper does not have last."""
    plain, errors = {"fusion": fusion}, published.METHODS[fusion]
    others = [method for method in METHODS if method not in errors]
    rows = [Row(fusion, plain, published=errors[PLAIN])]
    for method in [*errors, *others]:
        if method != PLAIN:
            change = plain | balanced(method, epochs)
            rows.append(Row(f"{fusion} + {method}", change, plain, errors.get(method, {})))
    return rows


def table3() -> Plan:
    """Subsets of the modalities, trained plainly."""
    rows = tuple(
        Row("+".join(subset), {"modalities": subset}, {"modalities": MODALITIES}, {"P1": errors})
        for subset, errors in published.SUBSETS.items()
    )
    return Plan("Table 3: modalities", rows, note="Differences are to all four.")


def table4(epochs: int) -> Plan:
    """Strengths of the constraint."""
    plain: Change = {}
    rows = [Row("plain", plain, None, {"P1": published.SUBSETS[MODALITIES]})]
    for (superior, inferior), errors in published.ALPHAS.items():
        change = awc(epochs, alpha_superior=float(superior), alpha_inferior=float(inferior))
        rows.append(Row(f"alpha {superior} / {inferior}", change, plain, {"P1": errors}))
    note = "Alphas are superior / inferior. Differences are to plain training."
    return Plan("Table 4: strengths of the constraint", tuple(rows), note=note)


def windows(epochs: int) -> Plan:
    """Learning windows, from none to the whole run."""
    lengths = sorted({part(epochs, share) for share in WINDOW_SHARES})
    plain: Change = {}
    rows = [Row("K = 0 (plain)", plain)]
    rows += [Row(f"K = {length}", awc(epochs, window=length), plain) for length in lengths]
    note = f"Differences are to plain training. The paper finds K = {published.BEST_WINDOW} of {published.EPOCHS} best."
    return Plan("Figure 6: sensitivity to the learning window K", tuple(rows), note=note)


def plain(_: int) -> Plan:
    """All modalities, trained plainly: what the paper shows contributions and spreads of."""
    return Plan("All modalities, trained plainly", (Row("plain", {}),), carriers=True)


def joint(epochs: int) -> Plan:
    """All modalities, plainly and with AWC."""
    plain: Change = {}
    rows = (Row("plain", plain), Row("AWC", awc(epochs), plain))
    return Plan("All modalities", rows, note="Differences are to plain training.")


def poses(epochs: int) -> Plan:
    """The same with one seed, which is enough for a picture."""
    plan = joint(epochs)
    return replace(plan, rows=tuple(replace(row, most_seeds=1) for row in plan.rows))


def demo(epochs: int) -> Plan:
    """All modalities, plainly and with AWC, and each alone with one seed."""
    alone = tuple(Row(modality, {"modalities": (modality,)}, {}, most_seeds=1) for modality in MODALITIES)
    note = "Differences are to plain training of all, seed by seed."
    return Plan("All modalities, and each alone", joint(epochs).rows + alone, note=note, carriers=True)


def findings(epochs: int) -> Plan:
    """The least that shows whether the paper's findings appear: all, all with AWC, the best two, and each alone."""
    errors = {"P1": published.METHODS["concat"]["AWC"]["P1"]}
    rows = [Row("+".join(MODALITIES) + ", AWC", awc(epochs), {}, errors)]
    rows += [
        Row("+".join(subset), {"modalities": subset}, {}, {"P1": published.SUBSETS[subset]})
        for subset in (MODALITIES, ("rgb", "lidar"), *((modality,) for modality in MODALITIES))
    ]
    note = "Differences are to all four, plain."
    return Plan("All modalities, two, and each alone", tuple(rows), note=note, carriers=True)


def settings_of(change: Change, common: Settings, protocol: str) -> Settings:
    """The settings of a row in a protocol, named by what they are, so that tables share their runs."""
    changed = replace(common, protocol=protocol, **change)
    modalities = tuple(modality for modality in MODALITIES if modality in changed.modalities)
    named = replace(changed, modalities=modalities)
    return replace(named, name=name_of(named))


def name_of(settings: Settings) -> str:
    """What a run is, in words: it differs between any two rows of the tables.

    >>> name_of(Settings("", "data", **awc(50)))
    'P1 rgb+lidar+mmwave+wifi concat AWC 20000/10000 K 20'
    >>> name_of(Settings("", "data", **balanced("OGM-GE", 50)))
    'P1 rgb+lidar+mmwave+wifi concat OGM-GE alpha 0.1 window 25'
    """
    encoder = f" {settings.wifi_encoder}" if settings.wifi_encoder != METAFI else ""
    method, options = settings.method, settings.method_options
    if method == AWC:
        superior, inferior, length = ({**PAPER_AWC, **options}[key] for key in PAPER_AWC)
        method = f"AWC {superior:g}/{inferior:g} K {length}"
        options = {key: value for key, value in options.items() if key not in PAPER_AWC}
    method += "".join(f" {key} {value}" for key, value in sorted(options.items()))
    return f"{settings.protocol} {'+'.join(settings.modalities)} {settings.fusion}{encoder} {method}"


def runs_of(rows: Sequence[Row], common: Settings, protocols: Sequence[str], seeds: int) -> list[Settings]:
    """The runs that rows need, each once, a whole seed before the next.

    Args:
        rows: Of a plan.
        common: What the rows change.
        protocols: To run in.
        seeds: Runs of each kind, with the seeds 0, 1, ...

    Raises:
        ValueError: If there is no seed.
    """
    if seeds < 1:
        raise ValueError(f"`seeds` should be 1 or more. Got `{seeds}`. Pass 3 to see a spread.")
    kinds: dict[str, tuple[Settings, int]] = {}
    for protocol in protocols:
        for row in rows:
            if row.change is not None:
                run = settings_of(row.change, common, protocol)
                kinds.setdefault(run.name, (run, row.most_seeds or seeds))
    return [replace(run, seed=seed) for seed in range(seeds) for run, most in kinds.values() if seed < most]
