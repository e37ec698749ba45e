"""What can be asked of ``python -m agents.survey``, and what its help tells; read without importing torch."""

from __future__ import annotations

from dataclasses import dataclass

from dsfp_env.surveys.settings import SurveyedOptions

DESCRIPTION = """\
What learners try on a task, live, added to a survey of it (`python -m dsfp_env.survey`), on both splits.

    python -m agents.survey --task cifar10-resnet20 --kd-batches 5 --out surveys/resnet20

A surrogate is made to be searched: it must know what searches look at, which random joint actions seldom are. Each
run, one learner with one reward and one seed, leaves a file; stopped and started again, the command goes on where
it was. The files also tell how learners rank live, with which their rank on the surrogate is compared.
"""
RANKING = """\
Whether learners rank on a surrogate as they do live.

    python -m agents.survey.ranking --survey surveys/resnet20 --surrogate surrogates/resnet20

The runs that `python -m agents.survey` has made live, each beside runs of the same learner with the same reward
and as many evaluations on the surrogate: the mean of the best scores seen, and the rank correlation of these
means.
"""
LEARNERS = (
    "q_learning",
    "regression_bandit",
    "joint_thompson",
    "linucb",
    "coordinate_search",
    "cma_es",
    "uniform",
    "random_search",
)


@dataclass(frozen=True)
class LearnersSurveySettings(SurveyedOptions):
    """Who is surveyed, and for how long."""

    agents: tuple[str, ...] = LEARNERS
    """Learners by name, with options as in 'q_learning(step_size=0.5)'."""
    rewards: tuple[str, ...] = ("accuracy_x_saving",)
    """What a joint action is worth, with its budget, if any, in brackets: 'budget(macs_budget=0.25)'."""
    seeds: str = "0-2"
    """Of the learners, and of the fine-tuning; for example 0-2 or 0,3,7."""
    evaluations: int = 150
    """Joint actions that a run may try."""


@dataclass(frozen=True)
class RankingSettings:
    """What is compared."""

    survey: str
    """The folder of a survey with runs of learners."""
    surrogate: str
    """One that comes with the package, or the folder of another."""
    seeds: str = "0-19"
    """Of the runs on the surrogate; for example 0-19 or 0,3,7."""
