"""What can be asked of `train_agents.py`: a dataclass that can be read without importing torch."""

from __future__ import annotations

from dataclasses import dataclass

from dsfp_env.evaluation.executors.options import ExecutorSettings
from dsfp_env.evaluation.options import EvaluationOptions, WidthOptions
from dsfp_env.tasks.options import TaskOptions


@dataclass(frozen=True, kw_only=True)
class BudgetOptions:
    """Budgets in place of --macs-budget; the settings of a command inherit it."""

    params_budget: float | None = None
    """Relative parameters allowed, in (0, 1), in place of --macs-budget."""
    latency_budget: str | None = None
    """Time of a forward pass allowed, likewise: a share of the original network's in (0, 1), such as 0.5, or a
    time such as 3.5ms or 800us. A model predicts it, fitted once on a device; final networks are measured."""
    deployed: str | None = None
    """With --latency-budget: how the network will be used, for example 'batch_size=8, threads=2,
    precision=bfloat16, channels_last=True'; and how it is measured: 'rounds=10, min_run_time=0.5,
    statistic=minimum' (where others use the machine)."""
    latency_networks: int = 60
    """With --latency-budget: pruned networks to measure for the model."""
    fill_budget: bool = False
    """With a budget: bring every joint action to it, by adding one number to all ratios, so that agents learn how
    layers stand to each other alone; there are no masks then."""


@dataclass(frozen=True, kw_only=True)
class FinishOptions:
    """What follows a search, or goes before it; the settings of a command inherit it."""

    warm_start: str | None = None
    """With --macs-budget: rules of the literature, such as 'sensitivity' or 'erk, sensitivity', whose plans the
    agents try first and learn from, as of their evaluations."""
    fine_tune: str | None = None
    """The long fine-tune of the best network, and of uniform pruning and random search at its cost: paper (300
    epochs), short (10), plain (30, without shifts and mirror images), or with changes: 'short(epochs=30)'."""
    criteria: str | None = None
    """Several criteria in place of --criterion, such as 'fisher, l1, dsfp': a fifth of the evaluations compares
    them on the same joint actions, the best one is searched with."""
    export: str | None = None
    """Files to write of the best network, and to check on the test split: onnx, torch, or 'onnx, torch'."""


@dataclass(frozen=True)
class RunSettings(TaskOptions, EvaluationOptions, WidthOptions, BudgetOptions, FinishOptions, ExecutorSettings):
    """What is learned, by whom, and for how long."""

    agent: str = "q_learning"
    """The learner: q_learning (tabular, DSFP section III-C), regression_bandit (DSFP section III-B),
    joint_thompson, coordinate_search, ppo, sac, random_search, ... (docs/agents.md lists and compares them), with
    options as in 'q_learning(step_size=0.5)'; or package.module:Class of your own. With --backend table, all
    stands for every one."""
    evaluations: int = 300
    """Joint actions that the agents may try. Each is one pruning, one fine-tuning and one measurement."""
    seed: int = 0
    """Of the agents, of the fine-tuning, of the split of the data and of the original network."""
    seeds: str | None = None
    """Several runs instead of one, for example 0-4 or 0,3,7; each has its folder, and a summary is added."""
    macs_budget: float | None = None
    """Relative MACs allowed, in (0, 1), for example 0.3."""
    reward: str | None = None
    """accuracy_x_saving = a * (1 - f), budget = a * min(1, F0 / f), accuracy_x_speed = a * (1 - t), or
    package.module:function of (outcome, original); a is the validation accuracy, f the relative MACs, F0 the
    budget, t the relative time of a forward pass. Unless given: budget if there is one (of MACs or other), else
    accuracy_x_saving."""
    out: str | None = None
    """The folder to write; runs/TASK-AGENT-seedSEED (runs/TASK-table with --backend table), or the next free name
    like it, unless given."""
    horizon: int = 1
    """Steps in an episode: 1 is the paper's one-shot decision; with more, agents revise their ratios."""
    credit: str = "shared"
    """Whose merit a score is: shared by all, or difference (of each agent its own part, measured by one more
    evaluation for every agent and step)."""
    observation: str = "layers"
    """What an agent sees: layers (features of its layer and the last outcome) or context (the paper's scalar)."""
    batch: int = 1
    """Joint actions that are chosen before the agents learn from them, and evaluated at once by the workers. More
    cost some of what is learned for each evaluation; results depend on it."""
    backend: str = "live"
    """live measures; table looks up what was measured once of every joint action, and makes a leaderboard instead
    of a report: the learner, or all, with every seed. --task is then digits, or the folder of another table."""
    config: str | None = None
    """A YAML file with settings, or the folder of a run, which holds one; options on the command line win."""
    track: str | None = None
    """Where else to show how the run goes: tensorboard, wandb, mlflow or trackio. Results do not depend on it."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:1, ..."""
    threads: int = 1
    """CPU threads of each process; an evaluation of the digits uses 1. Results can differ in the last digits
    between numbers of threads."""
    store: bool = True
    """Take outcomes that an earlier run has measured from the user's cache directory, and keep new ones there.
    With --no-store everything is evaluated anew. Results do not depend on it."""
