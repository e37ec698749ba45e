"""A run, or several, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dsfp_env.rewards import Outcome

LABELS = {
    "original": "original",
    "best": "best joint action",
    "uniform": "  uniform, equal MACs",
    "random_search_equal_macs": "  random search, equal MACs",
    "greedy": "greedy joint action",
    "uniform_at_greedy": "  uniform, equal MACs",
    "uniform_best_reward": "uniform, best reward",
    "random_search": "random search, best reward",
}
COLUMNS = ("test_accuracy", "validation_accuracy", "relative_macs", "params", "filters", "reward")


def entries_of(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The entries of a result by name, in the order of the table."""
    by_name = {**result, **result["baselines"]}
    return {name: by_name[name] for name in LABELS}


def table(result: Mapping[str, Any]) -> str:
    """One row per network."""
    entries = entries_of(result)
    lines = [f"{'':<28}{'test':>8}{'valid.':>8}{'MACs':>8}{'params':>10}{'filters':>9}{'reward':>9}  pruned, %"]
    for name, entry in entries.items():
        ratios = " ".join(f"{ratio:3.0f}" for ratio in entry["ratios"].values())
        lines.append(
            f"{LABELS[name]:<28}{entry['test_accuracy']:>8.1%}{entry['validation_accuracy']:>8.1%}"
            f"{entry['relative_macs']:>8.1%}{entry['params']:>10,}{entry['filters']:>9}{entry['reward']:>9.4f}  "
            f"{ratios}"
        )
    return "\n".join(lines)


def summary(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean and standard deviation over seeds: entry -> column -> ``mean``, ``std``."""
    entries = [entries_of(result) for result in results]
    return {
        name: {
            column: {
                "mean": float(np.mean(values)),
                "std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
            }
            for column in COLUMNS
            for values in [[entry[name][column] for entry in entries]]
        }
        for name in LABELS
    }


def summary_table(results: Sequence[Mapping[str, Any]]) -> str:
    """Mean and standard deviation over seeds, one row per network."""
    lines = [f"{len(results)} seeds, mean ± std {'':<5}{'test':>15}{'MACs':>15}{'reward':>18}"]
    for name, columns in summary(results).items():
        test, macs, reward = (columns[column] for column in ("test_accuracy", "relative_macs", "reward"))
        lines.append(
            f"{LABELS[name]:<28}{test['mean']:>7.1%} ± {test['std']:5.1%}{macs['mean']:>7.1%} ± {macs['std']:5.1%}"
            f"{reward['mean']:>9.4f} ± {reward['std']:.4f}"
        )
    return "\n".join(lines)


def draw(
    path: Path,
    result: Mapping[str, Any],
    evaluations: Sequence[Mapping[str, Any]],
    random_scores: Sequence[float],
    uniform_outcomes: Sequence[Outcome],
) -> None:
    """Draw kept filters, rewards over evaluations, and accuracy against MACs.

    Args:
        path: A PNG file.
        result: As in `result.json`.
        evaluations: The lines of `evaluations.jsonl`.
        random_scores: Rewards of random search, in order.
        uniform_outcomes: The sweep of uniform plans.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(16, 4.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    filters, rewards, tradeoff = figure.subplots(1, 3)
    figure.suptitle(
        f"{result['task']}, {result['agent']}, seed {result['seed']}: "
        f"{result['best']['test_accuracy']:.1%} test accuracy with {result['best']['relative_macs']:.1%} of the "
        f"MACs (original {result['original']['test_accuracy']:.1%})"
    )

    agents = list(result["original"]["ratios"])
    shown = {"original": "#dddddd", "best": "#d62728", "greedy": "#ff9896", "uniform": "#1f77b4"}
    width = 0.8 / len(shown)
    for offset, (name, colour) in enumerate(shown.items()):
        kept = [entries_of(result)[name]["filters_kept"][agent] for agent in agents]
        label = "uniform at the MACs of best" if name == "uniform" else name
        filters.bar(np.arange(len(agents)) + offset * width, kept, width, color=colour, label=label)
    filters.set_xticks(np.arange(len(agents)) + 0.3, agents, rotation=90 if len(agents) > 8 else 0)
    filters.set(title="filters kept", ylabel="filters")
    filters.legend(frameon=False)

    scores = [line["reward"] for line in evaluations]
    rewards.plot(np.arange(1, len(scores) + 1), scores, ".", color="#ff9896", label=result["agent"])
    rewards.plot(*_best_so_far(scores), color="#d62728", label=f"{result['agent']}, best so far")
    rewards.plot(*_best_so_far(random_scores), color="#7f7f7f", linestyle="--", label="random search, best so far")
    rewards.set(title="reward", xlabel="evaluations")
    rewards.legend(frameon=False)

    tradeoff.plot(
        [line["relative_macs"] for line in evaluations],
        [line["validation_accuracy"] for line in evaluations],
        ".",
        color="#cccccc",
        label="evaluated",
    )
    tradeoff.plot(
        [outcome.relative_macs for outcome in uniform_outcomes],
        [outcome.accuracy for outcome in uniform_outcomes],
        "o-",
        color="#1f77b4",
        markersize=4,
        label="uniform",
    )
    for name, marker, colour in (("original", "s", "black"), ("best", "*", "#d62728"), ("greedy", "P", "#ff9896")):
        entry = result[name]
        tradeoff.plot(
            entry["relative_macs"], entry["validation_accuracy"], marker, color=colour, markersize=12, label=name
        )
    tradeoff.set(title="validation accuracy", xlabel="MACs of the original's", xscale="log")
    tradeoff.xaxis.set_major_formatter(PercentFormatter(1))
    tradeoff.yaxis.set_major_formatter(PercentFormatter(1))
    tradeoff.legend(frameon=False)
    figure.savefig(path)


def _best_so_far(scores: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(1, len(scores) + 1), np.maximum.accumulate(scores)
