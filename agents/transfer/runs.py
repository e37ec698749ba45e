"""The runs of a study of transfer: made here or by workers, kept in files, then judged."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch

import agents
from agents.leaderboard.boards import Board, Run, SurrogateBoard, TableBoard
from agents.leaderboard.forms import Form, parse_form
from agents.registry import choose_agent
from agents.reporting.run_folder import (
    RUNS,
    SETTINGS,
    as_file_name,
    check_claimed_versions,
    check_free,
    claimed,
    claimed_versions,
    write_json,
)
from agents.reporting.seeds import parse_seeds
from agents.transfer.judging import judged
from agents.transfer.learners import OURS, Learned, learned
from agents.transfer.report import draw, tables
from agents.transfer.settings import DESCRIPTION, TransferSettings
from dsfp_env.common import command_line
from dsfp_env.common.choices import choose
from dsfp_env.common.devices import threads_set
from dsfp_env.common.errors import InputError
from dsfp_env.common.files import write_whole
from dsfp_env.common.folders import check_writable, named
from dsfp_env.common.json_files import plain, read_file
from dsfp_env.common.progress import Progress
from dsfp_env.common.saying import say
from dsfp_env.environment.env import LayerPruningEnv
from dsfp_env.evaluation.executors.as_done import as_done
from dsfp_env.evaluation.executors.options import WHERE
from dsfp_env.layer_pruning_v0 import parallel_env
from dsfp_env.suite import PARTS, Network, backend_of, known_networks, name_of, networks_of
from dsfp_env.surrogates.surrogate import load_surrogate
from dsfp_env.tables.table import load_table

STUDY = "transfer.json"
NOT_TOLD = ("training", "held_out", "out", *WHERE)  # settings: results tell the networks in full


class Job(NamedTuple):
    """One learner, with one reward and one seed."""

    agent: str
    form: Form
    seed: int


Boards = dict[str, Board]  # by name of the network
Found = dict[str, dict[str, Run]]  # what is kept of a learner with one reward and one seed, by network and budget


class Networks(NamedTuple):
    """What is learned on, and what is judged on."""

    training: Boards
    held_out: Boards


def main() -> int:
    """Run from the command line; returns the exit status."""
    return command_line.run(TransferSettings, transfer, DESCRIPTION)


def transfer(settings: TransferSettings) -> None:
    """Make the runs that are left, then print and write the tables and the picture.

    Raises:
        InputError: If a setting cannot be used, or the folder is of another study.
    """
    folder = named(settings.out)
    networks, jobs = check(settings, folder)
    same = {half: _signed(boards) for half, boards in networks._asdict().items()} | {
        name: getattr(settings, name) for name in ("training_evaluations", "budgets", "search_budget")
    }
    with claimed(folder, "a study of transfer", same, asdict(settings)):
        _fill(settings, networks, jobs, folder)


def _fill(settings: TransferSettings, networks: Networks, jobs: Sequence[Job], folder: Path) -> None:
    """Make the runs that are left, then print and write the tables and the picture."""
    left = {job: job for job in jobs if not piece(folder, job).exists()}
    if left:
        check_claimed_versions(folder, "the study")
    progress = Progress("learners", len(left))
    with closing(progress):
        for job, found in as_done(partial(run, networks, settings), left, settings.place()):
            write_json(piece(folder, job), found)
            progress.advance()
    runs: dict[Form, dict[str, list[Found]]] = {}
    for job in jobs:  # of one learner, those of all seeds
        runs.setdefault(job.form, {}).setdefault(job.agent, []).append(read(folder, job, networks.held_out))
    results = {
        "networks": {half: list(boards) for half, boards in networks._asdict().items()},
        "settings": {name: value for name, value in asdict(settings).items() if name not in NOT_TOLD},
        "versions": claimed_versions(folder),
        "forms": [judged(form, found, networks.held_out) for form, found in runs.items()],
    }
    text = tables(results)
    write_whole(folder / "transfer.md", lambda file: file.write(text.encode()))
    draw(folder / "transfer.png", results)
    write_json(folder / STUDY, results)  # last: a folder with it is whole
    say(f"{text}\nwritten to {folder}")


def check(settings: TransferSettings, folder: Path) -> tuple[Networks, list[Job]]:
    """Refuse what cannot be used before anything is run or written.

    Returns:
        The networks, and all runs that are asked for.

    Raises:
        InputError: If a setting cannot be used.
    """
    numbers = (*settings.budgets, settings.search_budget, settings.training_evaluations)
    if not settings.budgets or list(settings.budgets) != sorted(set(settings.budgets)) or min(numbers) < 1:
        raise InputError(
            f"--budgets is {settings.budgets}, --search-budget {settings.search_budget}, --training-evaluations "
            f"{settings.training_evaluations}: expected numbers of evaluations, 1 or more, budgets rising."
        )
    for name in settings.agents:
        if name not in OURS:
            choose_agent(name)
    settings.place().check(torch.device("cpu"))
    if (folder / SETTINGS).exists():
        check_writable(folder)
    else:
        check_free(folder)
    networks = Networks(
        *(
            {name_of(one): board_of(str(one)) for one in asked_for(given or (half,))}
            for half, given in (("training", settings.training), ("held_out", settings.held_out))
        )
    )
    forms = [parse_form(text) for text in dict.fromkeys(settings.rewards)]
    for form, board in product(forms, networks.held_out.values()):
        board.check(form)
    jobs = [Job(*one) for one in product(dict.fromkeys(settings.agents), forms, parse_seeds(settings.seeds))]
    if not jobs:
        raise InputError("No learner or no reward is named: expected one or more of each.")
    return networks, jobs


def asked_for(names: Sequence[str]) -> list[Network]:
    """Networks by name or folder, and those of parts of the suite."""
    return [one for name in names for one in (networks_of(name) if name in PARTS else (name,))]


def board_of(network: str) -> Board:
    """What learners are judged on: the table or the surrogate of a network, by its name or folder.

    Raises:
        InputError: If there is none.
    """
    if not os.path.isdir(network):
        choose("network", network, {**PARTS, **dict.fromkeys(known_networks())})
    if backend_of(network) == "surrogate":
        return SurrogateBoard(load_surrogate(network))
    return TableBoard(load_table(network))


def run(networks: Networks, settings: TransferSettings, job: Job) -> Found:
    """Let a learner learn where it may, and then try what it may on every held-out network."""
    budgets = settings.budgets if job.agent in OURS else sorted({*settings.budgets, settings.search_budget})
    training = [board.evaluator() for board in networks.training.values()]
    with threads_set(1):
        made = learned(job.agent, training, job.form, job.seed, settings.training_evaluations)
        found: Found = {}
        for name, board in networks.held_out.items():
            env = parallel_env(
                evaluator=board.evaluator(),
                actions=made.actions,
                reward=job.form.reward,
                macs_budget=job.form.macs_budget,
            )
            found[name] = {str(budget): _tried(env, board, job, made, budget) for budget in budgets}
    return found


def _tried(env: LayerPruningEnv, board: Board, job: Job, made: Learned, budget: int) -> Run:
    """What a learner tries within a budget."""
    team = made.team(env, budget)
    history = agents.train(env, team, budget, seed=job.seed)
    return board.kept(job.form, job.seed, history, agents.play(env, team).ratios)


def piece(folder: Path, job: Job) -> Path:
    """The file of one learner, reward and seed."""
    return folder / RUNS / f"{as_file_name(f'{job.form.text}--{job.agent}')}--seed{job.seed}.json"


def read(folder: Path, job: Job, held_out: Boards) -> Found:
    """What a learner tried.

    Raises:
        InputError: If its file is not what a run leaves.
    """
    path, found = piece(folder, job), {}
    otherwise = f"remove {path}, and it is made anew"
    for name, by_budget in read_file(path, dict[str, dict[str, Any]], otherwise).items():
        if name not in held_out:
            raise InputError(f"{path} is of the network {name!r}, which is not held out here: {otherwise}.")
        found[name] = {
            k: plain(json.dumps(one), held_out[name].line, str(path), otherwise) for k, one in by_budget.items()
        }
        if not all(held_out[name].fits(one) for one in found[name].values()):
            raise InputError(f"{path} is no run on {name}: {otherwise}.")
    return found


def _signed(boards: Boards) -> list[str]:
    """Which networks they are, to the last number."""
    return [f"{name} {board.checksum}" for name, board in boards.items()]
