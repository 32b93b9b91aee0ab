"""Turns the rounds of a row into numbers, and the numbers into a table."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from rows import Goal, Round, Row

# A goal counts as met if it is missed by no more than this share.
TOLERANCE = 0.05


@dataclass(frozen=True)
class Spread:
    """The middle of some values and how far they lie apart."""

    median: float
    least: float
    most: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
        return cls(statistics.median(values), min(values), max(values), low, high)


@dataclass
class Result:
    """A row as it came out."""

    key: str
    title: str
    rounds: int
    # By contestant and measure.
    contestants: dict[str, dict[str, Spread]] = field(default_factory=dict)
    goals: list[dict[str, object]] = field(default_factory=list)
    # Contestants that did not run, with the reason.
    skipped: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def evaluate(row: Row, rounds: Sequence[Round], skipped: dict[str, str], judged: bool) -> Result:
    result = Result(row.key, row.title, len(rounds), skipped=skipped)
    if not rounds:
        return result
    for name, sample in rounds[0].items():
        result.contestants[name] = {key: Spread.of([r[name][key] for r in rounds]) for key in sample}
    for goal in row.goals:
        try:
            spread = Spread.of([goal.of(samples) for samples in rounds])
        except KeyError:
            result.goals.append({"text": goal.text, "verdict": "skipped"})
            continue
        result.goals.append({
            "text": goal.text, "unit": goal.unit, "at_least": goal.at_least, "at_most": goal.at_most,
            **asdict(spread), "verdict": verdict(goal, spread.median) if judged else "not judged",
        })
    return result


def verdict(goal: Goal, value: float) -> str:
    """How a value stands to its goal."""
    if goal.at_least is not None:
        exact, nearly = value >= goal.at_least, value >= goal.at_least * (1 - TOLERANCE)
    elif goal.at_most is not None:
        exact, nearly = value <= goal.at_most, value <= goal.at_most * (1 + TOLERANCE)
    else:
        return "for information"
    return "met" if exact else f"met (within {TOLERANCE:.0%})" if nearly else "MISSED"


def table(row: Row, result: Result) -> str:
    """The row for a person."""
    lines = [f"{result.key} · {result.title} · {result.rounds} rounds", ""]
    for name, measures in result.contestants.items():
        cells = []
        for key, unit, factor in row.shown:
            if key in measures:
                spread = measures[key]
                cells.append(f"{number(spread.median * factor)} {unit} "
                             f"({number(spread.least * factor)}–{number(spread.most * factor)})")
        lines.append(f"  {name:<14}" + "   ".join(f"{cell:<34}" for cell in cells).rstrip())
    lines += [f"  {name:<14}skipped: {why}" for name, why in result.skipped.items()]
    lines += ["", f"  {'round by round':<42}{'median':>10}   {'quartiles':<16}{'min–max':<18}{'goal':<12}"]
    for goal in result.goals:
        if goal["verdict"] == "skipped":
            lines.append(f"  {goal['text']:<42}skipped")
            continue
        unit = goal["unit"]
        bound = (f"≥ {goal['at_least']:g}{unit}" if goal["at_least"] is not None
                 else f"≤ {goal['at_most']:g}{unit}" if goal["at_most"] is not None else "")
        median, low, high, least, most = (number(goal[k]) for k in ("median", "low", "high", "least", "most"))
        lines.append(f"  {goal['text']:<42}{median + str(unit):>10}   {low + '–' + high:<16}"
                     f"{least + '–' + most:<18}{bound:<12}{goal['verdict']}")
    return "\n".join(lines) + "\n"


def number(value: object) -> str:
    """Three digits that count, without an exponent."""
    assert isinstance(value, (int, float))
    digits = 3 if abs(value) < 1 else 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{digits}f}"
