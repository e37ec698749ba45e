"""A run, or several, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agents.reporting.metric_units import units_of
from dsfp_env.evaluation.outcome import Outcome

LABELS = {
    "original": "original",
    "best": "best joint action",
    "uniform": "  uniform, equal MACs",
    "random_search_equal_macs": "  random search, equal MACs",
    "random_search_equal_params": "  random search, equal params",
    "random_search_equal_latency": "  random search, equal time",
    "greedy": "greedy joint action",
    "uniform_at_greedy": "  uniform, equal MACs",
    "uniform_best_reward": "uniform, best reward",
    "random_search": "random search, best reward",
}
_EQUAL = {"params": "params", "latency": "time"}  # kind of cost -> word
RED, PINK, BLUE, GREY = "#d62728", "#ff9896", "#1f77b4", "#cccccc"
AGAIN = (
    "Pruned networks are measured again, each fine-tuned with three seeds that no search has seen, and these are\n"
    "the means: so they differ from the rewards seen on the way, of which the highest is partly luck."
)
COLUMNS = ("test_accuracy", "validation_accuracy", "relative_macs", "params", "filters", "reward")
IN_OWN_UNITS = ("test_metric", "validation_metric")


def entries_of(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The entries of a result by name, in the order of the table."""
    by_name = {**result, **result["baselines"]}
    return {name: by_name[name] for name in LABELS if name in by_name}


def labels_of(result: Mapping[str, Any]) -> dict[str, str]:
    """What the entries are called, equal in what the budget is of."""
    of = equal_in(result)
    return {name: label.replace("equal MACs", f"equal {of}") for name, label in LABELS.items()}


def equal_in(result: Mapping[str, Any]) -> str:
    """The kind of cost in which yardsticks are equal, as tables have it."""
    return _EQUAL.get(of_budget(result), "MACs")


def of_budget(result: Mapping[str, Any]) -> str:
    """The kind of cost in which yardsticks are equal."""
    return next((kind for kind in _EQUAL if f"random_search_equal_{kind}" in result["baselines"]), "macs")


def times(result: Mapping[str, Any]) -> str:
    """Times of a forward pass, predicted and measured, one row per network; nothing where there are none."""
    entries, labels = entries_of(result), labels_of(result)
    if "measured_latency" not in entries["original"]:
        return ""
    lines = [f"{'ms of a forward pass':<30}{'predicted':>10}{'measured':>10}{'noise':>8}"]
    for name, entry in entries.items():
        predicted, measured, noise = (
            1e3 * entry[key] for key in ("predicted_latency", "measured_latency", "latency_spread")
        )
        lines.append(f"{labels[name]:<30}{predicted:>10.3f}{measured:>10.3f}{noise:>8.3f}")
    return "\n".join([*lines, error_of_times(result)])


def error_of_times(result: Mapping[str, Any]) -> str:
    """How good predicted times are, as the model itself says."""
    about = result["latency_model"]
    return (
        f"the model, from {about['measurements']} networks, was off by {about['median_error']:.1%} at most for "
        f"half of those left out, by {about['error_90']:.1%} for nine tenths"
    )


def tables(result: Mapping[str, Any]) -> str:
    """All that is printed of a result."""
    return "\n\n".join(filter(None, [table(result), AGAIN, times(result), fine_tuned(result), others(result)]))


def table(result: Mapping[str, Any]) -> str:
    """One row per network."""
    entries, labels, units = entries_of(result), labels_of(result), units_of(result)
    metric = "" if units.is_accuracy else units.name
    lines = [
        f"{metric:<28}{'test':>8}{'valid.':>8}{'MACs':>8}{'params':>10}{'filters':>9}{'reward':>9}  pruned, %"
    ]
    for name, entry in entries.items():
        ratios = " ".join(f"{ratio:3.0f}" for ratio in entry["ratios"].values())
        lines.append(
            f"{labels[name]:<28}{units.text(entry, 'test'):>8}{units.text(entry, 'validation'):>8}"
            f"{entry['relative_macs']:>8.1%}{entry['params']:>10,}{entry['filters']:>9}{entry['reward']:>9.4f}  "
            f"{ratios}"
        )
    if volume := result.get("hypervolume"):
        lines.append(
            f"hypervolume of {units.scaled_name} and saved MACs: {volume['tried']:.3f} of what was tried, "
            f"{volume['random_search']:.3f} of random search"
        )
    return "\n".join(lines)


def fine_tuned(result: Mapping[str, Any]) -> str:
    """What the long fine-tune came to, one row per network; nothing where there was none."""
    if "fine_tuned" not in result:
        return ""
    told, labels, entries = result["fine_tuned"], labels_of(result), entries_of(result)
    units = units_of(result)
    lines = [
        f"after the long fine-tune, {told['recipe']}",
        f"{'':<30}{'test':>8}{'valid.':>8}{'MACs':>8}{'epoch':>8}",
    ]
    for name, one in told["networks"].items():
        lines.append(
            f"{labels[name]:<30}{units.text(one, 'test'):>8}{units.text(one, 'validation'):>8}"
            f"{entries[name]['relative_macs']:>8.1%}{one['best_epoch']:>8}"
        )
    return "\n".join(lines)


def others(result: Mapping[str, Any]) -> str:
    """Criteria that were compared, and files that were exported, a line for each."""
    lines, units = [], units_of(result)
    if compared := result.get("criteria"):
        rewards = sorted(compared["mean_reward"].items(), key=lambda one: -one[1])
        lines.append(
            f"criteria on the same {compared['joint_actions']} joint actions, mean reward: "
            f"{', '.join(f'{name} {reward:.4f}' for name, reward in rewards)}"
        )
    for name, told in result.get("exported", {}).items():
        if told.get("agrees"):
            value = units.text(told, "test")
            found = f"{value} of" if units.is_accuracy else f"{units.name} {value} on"
            lines.append(
                f"{told['file']}: {found} the test split, as the network; logits differ by "
                f"{told['largest_difference']:.1e} at most"
            )
        else:
            lines.append(f"{name}: {told.get('error', 'the file answers otherwise than the network')}")
    return "\n".join(lines)


def summary(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean and standard deviation over seeds: entry -> column -> ``mean``, ``std``.

    Where the metric is not accuracy, there are also columns in its own units.
    """
    entries = [entries_of(result) for result in results]
    own = all(column in entry for of_one in entries for entry in of_one.values() for column in IN_OWN_UNITS)
    return {
        name: {
            column: {
                "mean": float(np.mean(values)),
                "std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
            }
            for column in (*COLUMNS, *(IN_OWN_UNITS if own else ()))
            for values in [[entry[name][column] for entry in entries]]
        }
        for name in entries[0]
    }


def summary_table(results: Sequence[Mapping[str, Any]]) -> str:
    """Mean and standard deviation over seeds, one row per network."""
    labels, units = labels_of(results[0]), units_of(results[0])
    column, kind = ("test_accuracy", ".1%") if units.is_accuracy else ("test_metric", "#.3g")
    lines = [] if units.is_accuracy else [f"test: {units.name}"]
    lines.append(f"{len(results)} seeds, mean ± std {'':<5}{'test':>15}{'MACs':>15}{'reward':>18}")
    for name, columns in summary(results).items():
        test, macs, reward = (columns[column] for column in (column, "relative_macs", "reward"))
        found = f"{format(test['mean'], kind):>7} ± {format(test['std'], kind):>5}"
        lines.append(
            f"{labels[name]:<28}{found}{macs['mean']:>7.1%} ± {macs['std']:5.1%}"
            f"{reward['mean']:>9.4f} ± {reward['std']:.4f}"
        )
    lines += ["", AGAIN]
    return "\n".join(lines)


def draw(
    path: Path,
    result: Mapping[str, Any],
    evaluations: Sequence[Mapping[str, Any]],
    random_scores: Sequence[float],
    uniform_outcomes: Sequence[Outcome],
) -> None:
    """Draw kept filters, rewards over evaluations, and the metric against MACs.

    Args:
        path: A PNG file.
        result: As in `result.json`.
        evaluations: The lines of `evaluations.jsonl`.
        random_scores: Rewards of random search, in order.
        uniform_outcomes: The sweep of uniform plans.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 4.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    filters, rewards, tradeoff = figure.subplots(1, 3)
    best, original, units = result["best"], result["original"], units_of(result)
    value = units.text(best, "test")
    found = f"{value} test accuracy" if units.is_accuracy else f"test {units.name} {value}"
    figure.suptitle(
        f"{result['task']}, {result['agent']}, seed {result['seed']}: {found} "
        f"with {best['relative_macs']:.1%} of the MACs (original {units.text(original, 'test')})"
    )
    _draw_filters(filters, result)
    _draw_rewards(rewards, result["agent"], [line["reward"] for line in evaluations], random_scores)
    _draw_tradeoff(tradeoff, result, evaluations, uniform_outcomes)
    figure.savefig(path)


def _draw_filters(axes: Any, result: Mapping[str, Any]) -> None:
    agents = list(result["original"]["ratios"])
    places = np.arange(len(agents))
    entries = entries_of(result)
    shown = {"original": GREY, "best": RED, "greedy": PINK, "uniform": BLUE}
    width = 0.8 / len(shown)
    for offset, (name, colour) in enumerate(shown.items()):
        kept = [entries[name]["filters_kept"][agent] for agent in agents]
        label = f"uniform at the {equal_in(result)} of best" if name == "uniform" else name
        axes.bar(places + offset * width, kept, width, color=colour, label=label)
    axes.set_xticks(places + (len(shown) - 1) / 2 * width, agents, rotation=90 if len(agents) > 8 else 0)
    axes.set(title="filters kept")
    axes.legend(frameon=False)


def _draw_rewards(axes: Any, agent: str, scores: Sequence[float], random_scores: Sequence[float]) -> None:
    axes.plot(np.arange(1, len(scores) + 1), scores, ".", color=PINK, label=agent)
    axes.plot(*_best_so_far(scores), color=RED, label=f"{agent}, best so far")
    axes.plot(*_best_so_far(random_scores), color="black", linestyle="--", label="random search, best so far")
    axes.set(title="reward", xlabel="evaluations")
    axes.legend(frameon=False)


def _draw_tradeoff(
    axes: Any,
    result: Mapping[str, Any],
    evaluations: Sequence[Mapping[str, Any]],
    uniform_outcomes: Sequence[Outcome],
) -> None:
    from matplotlib.ticker import PercentFormatter

    units = units_of(result)
    evaluated = [(line["relative_macs"], units.value(line, "validation")) for line in evaluations]
    uniform = [(outcome.relative_macs, units.of_scaled(outcome.accuracy)) for outcome in uniform_outcomes]
    axes.plot(*zip(*evaluated, strict=True), ".", color=GREY, label="evaluated")
    front = [(line["relative_macs"], units.value(line, "validation")) for line in result["pareto"]]
    axes.step(*zip(*front, strict=True), where="post", color=PINK, label="Pareto front of these")
    axes.plot(*zip(*uniform, strict=True), "o-", color=BLUE, markersize=4, label="uniform")
    marks = {"original": ("s", "black", 8), "greedy": ("P", PINK, 12), "best": ("*", RED, 18)}
    for name, (marker, colour, size) in marks.items():
        entry = result[name]
        label = name if name == "original" else f"{name}, mean of fresh seeds"
        place = entry["relative_macs"], units.value(entry, "validation")
        axes.plot(*place, marker, color=colour, markersize=size, markeredgecolor="black", label=label)
    axes.set(title=f"validation {units.axis}", xlabel="MACs of the original's", xscale="log")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    if units.is_accuracy:
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(frameon=False)


def _best_so_far(scores: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(1, len(scores) + 1), np.maximum.accumulate(scores)
