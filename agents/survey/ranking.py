"""Whether learners rank on a surrogate as they do live: ``python -m agents.survey.ranking``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

from agents.survey.settings import RANKING, RankingSettings
from dsfp_env.common import command_line

if __name__ == "__main__":
    command_line.answer_early(RankingSettings, RANKING)

import numpy as np
from scipy.stats import spearmanr

import agents
import dsfp_env
from agents.contests import held_contest
from agents.leaderboard.forms import parse_form
from agents.reporting.seeds import parse_seeds
from agents.survey.runs import read_runs
from dsfp_env.common.errors import InputError
from dsfp_env.common.folders import named
from dsfp_env.common.saying import say


class Ranked(NamedTuple):
    """One learner: the best scores it saw, a number for each run."""

    agent: str
    live: list[float]
    predicted: list[float]


def main() -> int:
    """Run from the command line; returns the exit status."""
    return command_line.run(RankingSettings, rank, RANKING)


def rank(settings: RankingSettings) -> None:
    """Print how learners rank, a table for each reward and number of evaluations.

    Raises:
        InputError: If there is no such surrogate, or the survey has no runs of learners.
    """
    surrogate = dsfp_env.load_surrogate(settings.surrogate)
    runs = read_runs(named(settings.survey, "--survey"))
    if not runs:
        raise InputError(f"{settings.survey} has no runs of learners: expected some of `python -m agents.survey`.")
    seeds = parse_seeds(settings.seeds)
    for reward, evaluations in dict.fromkeys((run["reward"], run["evaluations"][-1]) for run in runs):
        of_these = [run for run in runs if (run["reward"], run["evaluations"][-1]) == (reward, evaluations)]
        say(as_text(reward, evaluations, ranked(surrogate, of_these, reward, evaluations, seeds)))


def ranked(
    surrogate: dsfp_env.Surrogate,
    runs: Iterable[Mapping[str, Any]],
    reward: str,
    evaluations: int,
    seeds: Iterable[int],
) -> list[Ranked]:
    """The learners of live runs, each let loose on the surrogate, the best live first."""
    live: dict[str, list[float]] = {}
    for run in runs:
        live.setdefault(run["agent"], []).append(max(run["scores"]))
    evaluator = dsfp_env.SurrogateEvaluator(surrogate)
    found = [
        Ranked(agent, scores, [_best(evaluator, agent, reward, evaluations, seed) for seed in seeds])
        for agent, scores in live.items()
    ]
    return sorted(found, key=lambda one: -float(np.mean(one.live)))


def rank_correlation(found: Iterable[Ranked]) -> float:
    """Spearman's, of the mean best scores live and on the surrogate."""
    live, predicted = zip(*((np.mean(one.live), np.mean(one.predicted)) for one in found), strict=True)
    return float(spearmanr(live, predicted).statistic)


def as_text(reward: str, evaluations: int, found: list[Ranked]) -> str:
    """A table in Markdown."""
    lines = [
        f"{reward}, {evaluations} evaluations: Spearman {rank_correlation(found):.3f}\n",
        "| learner | live: mean best score | runs | on the surrogate | runs |",
        "|---|---|---|---|---|",
    ]
    for one in found:
        means = (f"{np.mean(scores):.4f} | {len(scores)}" for scores in (one.live, one.predicted))
        lines.append(f"| {one.agent} | {' | '.join(means)} |")
    return "\n".join(lines) + "\n"


def _best(evaluator: dsfp_env.SurrogateEvaluator, text: str, reward: str, evaluations: int, seed: int) -> float:
    """The best score that a learner sees on the surrogate."""
    form = parse_form(reward)
    env_of = partial(dsfp_env.parallel_env, evaluator=evaluator, reward=form.reward, macs_budget=form.macs_budget)
    return agents.best(held_contest(text, env_of, evaluations, seed).history).score


if __name__ == "__main__":
    sys.exit(main())
