"""A sweep over the options of a learner, on a table, with Optuna's search and a Ray cluster's workers.

    pip install 'dsfp_env[ray,search]'
    python examples/tune_sweep.py --trials 64 --seeds 20 --evaluations 100
    python examples/tune_sweep.py --address auto                               (on a cluster that is there)

A trial is one setting of Q-learning's options; what it is worth is the mean regret of its greedy joint action over
seeds: 0 is the optimum of the table, 1 is chance. Nothing is measured, so a trial takes as long as its learner.
Optuna suggests as many trials at a time as --at-once says, whatever the number of workers, so a sweep is the same
wherever it is made.
"""

import argparse
from functools import partial
from typing import Any

import numpy as np
import optuna

import agents
import dsfp_env
from agents.registry import choose_agent
from dsfp_env.evaluation.executors.as_done import as_done
from dsfp_env.evaluation.executors.chosen import executor_from


def regrets(options: dict[str, Any], env: dsfp_env.LayerPruningEnv, seeds: int, evaluations: int) -> list[float]:
    """How far Q-learning with these options ends from the optimum, for each seed."""
    table = env.evaluator.table
    scores = table.scores("accuracy_x_saving")
    text = ", ".join(f"{name}={value!r}" for name, value in options.items())
    found = []
    for seed in range(seeds):
        team = choose_agent(f"q_learning({text})").make(env, seed, evaluations)
        agents.train(env, team, evaluations, seed=seed)
        score = scores[table.row_of(agents.play(env, team).ratios)]
        found.append(float((scores.max() - score) / (scores.max() - scores.mean())))
    return found


def main() -> None:
    """Ask, evaluate, tell; then print the best."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--evaluations", type=int, default=100)
    parser.add_argument("--executor", default="ray")
    parser.add_argument("--address")
    args = parser.parse_args()
    where = f"ray(address='{args.address}')" if args.address else args.executor
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, multivariate=True))
    env = dsfp_env.parallel_env(backend="table", actions="levels")  # travels with the work
    work = partial(regrets, env=env, seeds=args.seeds, evaluations=args.evaluations)
    executor = executor_from(where)
    keeping = executor.begin(len)  # the cluster stays from one round to the next
    while len(study.trials) < args.trials:
        trials = [study.ask() for _ in range(min(args.at_once, args.trials - len(study.trials)))]
        asked = {
            trial.number: {
                "step_size": trial.suggest_float("step_size", 0.05, 1.0, log=True),
                "final_epsilon": trial.suggest_float("final_epsilon", 0.0, 0.2),
            }
            for trial in trials
        }
        done = {number: float(np.mean(found)) for number, found in as_done(work, asked, executor_from(where))}
        for trial in trials:  # in the order asked for, not in that of their ends
            study.tell(trial, done[trial.number])
        print(f"{len(study.trials)} trials, least regret {study.best_value:.4f}", flush=True)
    keeping.stop()
    executor.stop()
    options = ", ".join(f"{name}={value:.3g}" for name, value in study.best_params.items())
    print(f"--agent 'q_learning({options})': mean regret {study.best_value:.4f} over {args.seeds} seeds")


if __name__ == "__main__":
    main()
