"""Tables: what they answer, that they are what was measured, and what they refuse."""

import json
import pickle
import shutil

import numpy as np
import pytest
from tables import all_levels, make_table

import dsfp_env
from dsfp_env.common.errors import InputError
from dsfp_env.tables import files as table_files


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_table(tmp_path_factory.mktemp("tables") / "hand")


@pytest.fixture(scope="module")
def table(folder):
    return dsfp_env.load_table(folder)


def counted(tmp_path, counts, **kwargs):
    """A table of one agent whose joint actions have these numbers of right answers of 100, everywhere."""
    correct = np.array(counts)[:, None, None, None]
    return dsfp_env.load_table(make_table(tmp_path / "counted", agents=1, seeds=(0,), correct=correct, **kwargs))


def test_rows_count_like_an_odometer(table):
    levels = all_levels(2, 3)
    assert levels[:4].tolist() == [[0, 0], [0, 1], [0, 2], [1, 0]]
    assert table.rows(levels).tolist() == list(range(9))
    assert table.levels_of(np.arange(9)).tolist() == levels.tolist()
    assert table.ratios_of(5) == {"conv_0": 50.0, "conv_1": 90.0}
    assert table.row_of(table.ratios_of(5)) == 5


def test_what_a_query_answers_by_hand(tmp_path):
    table = counted(tmp_path, [90, 60, 20])  # 10, 50, 90 % of 10 filters, whose MACs are 10 a filter
    answers = table.query([[0], [2], [0]])
    assert answers.accuracy.tolist() == [0.9, 0.2, 0.9]
    assert answers.filters.tolist() == [9, 1, 9]
    assert answers.macs.tolist() == answers.params.tolist() == [90, 10, 90]
    assert answers.relative_macs.tolist() == [0.9, 0.1, 0.9]


def test_the_optimum_and_regrets_by_hand(tmp_path):
    table = counted(tmp_path, [90, 60, 20])
    # a (1 - f): 0.9 * 0.1, 0.6 * 0.5, 0.2 * 0.9
    assert table.scores() == pytest.approx([0.09, 0.3, 0.18])
    best = table.optimum("accuracy_x_saving")
    assert best.ratios == {"conv_0": 50.0}
    assert (best.score, best.accuracy, best.test_accuracy, best.relative_macs) == pytest.approx(
        (0.3, 0.6, 0.6, 0.5)
    )
    assert table.regret({"conv_0": 90.0}, "accuracy_x_saving") == pytest.approx(0.12)
    assert table.regret([[0], [1]]) == pytest.approx([0.21, 0])
    assert table.regret([[0], [1], [2]], normalised=True).mean() == pytest.approx(1)  # of drawing at random
    # a min(1, 0.5 / f): 0.9 * 5 / 9, 0.6, 0.2
    assert table.scores("budget", macs_budget=0.5) == pytest.approx([0.5, 0.6, 0.2])
    assert table.optimum(lambda outcome, original: -outcome.accuracy).ratios == {"conv_0": 90.0}


def test_the_front_by_hand(tmp_path):
    table = counted(tmp_path, [70, 80, 20])  # the smaller network at 50 % is better than that at 10 %
    front = table.pareto()
    assert front.levels.tolist() == [[2], [1]]
    assert front.accuracy.tolist() == [0.2, 0.8]


def test_without_a_seed_scores_are_means_over_seeds(table):
    each = [table.accuracies(seed) for seed in table.seeds]
    assert not np.array_equal(each[0], each[1])
    assert table.accuracies() == pytest.approx(np.mean(each, axis=0))
    scores = [table.scores("budget", 0.3, seed) for seed in table.seeds]
    assert table.scores("budget", 0.3) == pytest.approx(np.mean(scores, axis=0))


def test_splits_and_fidelities_are_apart(table):
    kinds = [table.accuracies(0, split, fidelity) for split in ("validation", "test")
             for fidelity in ("distilled", "recalibrated")]  # fmt: skip
    assert len({tuple(kind) for kind in kinds}) == 4


def test_a_live_run_would_have_measured_equal_joint_actions_once(table):
    assert table.live_seconds([[0, 0], [1, 2], [0, 0]]) == 2 * 0.5


def test_a_query_is_one_lookup_for_any_number(table):
    levels = np.random.default_rng(0).integers(0, 3, (10_000, 2))
    whole = table.query(levels, seed=1)
    assert whole.accuracy[123] == table.query(levels[123:124], seed=1).accuracy[0]
    assert table.query(levels.astype(np.uint8), seed=1).macs.tolist() == whole.macs.tolist()
    assert table.query(np.empty((0, 2), int)).accuracy.shape == (0,)


@pytest.mark.parametrize(
    ("levels", "sentence"),
    [
        ([[0, 3]], "level of conv_1 in joint action 0 is 3: expected 0 (10 %) to 2 (90 %)"),
        ([[0, 0], [-1, 0]], "level of conv_0 in joint action 1 is -1"),
        ([0, 1], "expected integers [N, 2]"),
        ([[0.5, 1]], "expected integers"),
        ([[0, 1, 2]], "conv_0, conv_1"),
    ],
)
def test_levels_that_cannot_be_looked_up(table, levels, sentence):
    with pytest.raises(InputError) as refused:
        table.query(levels)
    assert sentence in str(refused.value)


def test_other_questions_that_cannot_be_answered(table):
    with pytest.raises(InputError, match="has no seed 7: expected one of \\[0, 1, 2\\]"):
        table.query([[0, 0]], seed=7)
    with pytest.raises(InputError, match="Did you mean 'test'"):
        table.query([[0, 0]], split="tests")
    with pytest.raises(InputError, match="fidelity of a table 'long'"):
        table.accuracies(fidelity="long")
    with pytest.raises(InputError, match="conv_1 missing"):
        table.regret({"conv_0": 50.0}, "accuracy_x_saving")
    with pytest.raises(InputError, match="needs measured times"):
        table.optimum("accuracy_x_speed")


def test_a_table_survives_pickling(table):
    again = pickle.loads(pickle.dumps(table))
    assert np.array_equal(again.scores(), table.scores())


def test_arrays_are_mapped_and_cannot_be_written(table):
    assert isinstance(table.arrays.correct, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        table.arrays.correct[0] = 0


# What is refused


def spoiled(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "spoiled")


def test_a_name_that_is_no_table():
    with pytest.raises(InputError, match=r"no table 'digit'.*digits"):
        dsfp_env.load_table("digit")


def test_a_folder_that_is_no_table(tmp_path):
    with pytest.raises(InputError, match=r"is no table: meta.json cannot be read"):
        dsfp_env.load_table(tmp_path)
    (tmp_path / "meta.json").write_text('{"schema": 99}')
    with pytest.raises(InputError, match="its schema is 99, expected 1"):
        dsfp_env.load_table(tmp_path)
    (tmp_path / "meta.json").write_text("[1]")
    with pytest.raises(InputError, match="its schema is list, expected 1"):
        dsfp_env.load_table(tmp_path)


@pytest.mark.parametrize("name", ["correct.npy", "costs.npy", "filters_kept.npy", "seconds.npy"])
def test_a_changed_byte_is_found(folder, tmp_path, name):
    where = spoiled(folder, tmp_path)
    content = bytearray((where / name).read_bytes())
    content[-1] ^= 1
    (where / name).write_bytes(content)
    with pytest.raises(InputError, match=f"damaged: {name} is not the file"):
        dsfp_env.load_table(where)


def test_a_truncated_and_a_missing_file(folder, tmp_path):
    where = spoiled(folder, tmp_path)
    (where / "costs.npy").write_bytes((where / "costs.npy").read_bytes()[:50])
    with pytest.raises(InputError, match=r"damaged: costs\.npy"):
        dsfp_env.load_table(where)
    (where / "costs.npy").unlink()
    with pytest.raises(InputError, match=r"not whole: costs\.npy is missing"):
        dsfp_env.load_table(where)


def test_a_changed_meta_is_found(folder, tmp_path):
    where = spoiled(folder, tmp_path)
    meta = json.loads((where / "meta.json").read_text())
    (where / "meta.json").write_text(json.dumps({**meta, "levels": [10, 50, 80]}))
    with pytest.raises(InputError, match=r"damaged: meta\.json was changed"):
        dsfp_env.load_table(where)


def test_pickles_are_never_read(folder, tmp_path):
    where = spoiled(folder, tmp_path)
    np.save(where / "costs.npy", np.array([{}], dtype=object), allow_pickle=True)
    table_files.finish(where, {k: v for k, v in table_files.read_meta(where).items() if k != "files"})
    with pytest.raises(InputError, match=r"costs\.npy cannot be read"):
        dsfp_env.load_table(where)


def test_an_array_of_another_shape_is_refused(folder, tmp_path):
    where = spoiled(folder, tmp_path)
    np.save(where / "costs.npy", np.zeros((4, 3), np.int64))
    table_files.finish(where, {k: v for k, v in table_files.read_meta(where).items() if k != "files"})
    with pytest.raises(InputError, match=r"costs\.npy has shape \(4, 3\) of int64, expected \(9, 3\)"):
        dsfp_env.load_table(where)


def test_a_table_that_is_not_finished_says_how_much_is_left(folder, tmp_path):
    where = spoiled(folder, tmp_path)
    meta = {k: v for k, v in table_files.read_meta(where).items() if k not in ("files", "checksum")}
    table_files.write_meta(where, meta)
    arrays = table_files.open_arrays(where, meta, writable=True)
    arrays.correct[2, 0, 0, 0] = np.iinfo(arrays.correct.dtype).max
    with pytest.raises(InputError, match="not finished: 1 joint actions are left"):
        dsfp_env.load_table(where)


# Behind the environment


def test_the_environment_answers_from_the_table(table):
    env = dsfp_env.parallel_env(task=table, backend="table", actions="levels")
    env.reset(seed=1)
    assert env.action_space("conv_0").n == 3
    _, rewards, terminations, _, infos = env.step({"conv_0": 1, "conv_1": 2})
    outcome = table.outcome(5, seed=1)
    assert rewards["conv_0"] == outcome.accuracy * (1 - outcome.relative_macs) == table.scores(seed=1)[5]
    assert terminations["conv_0"]
    assert infos["conv_1"]["ratio"] == infos["conv_1"]["applied_ratio"] == 90.0
    assert infos["conv_1"]["filters_kept"] == 1


def test_a_ratio_between_levels_is_answered_by_the_nearest(table):
    env = dsfp_env.parallel_env(task=table, backend="table", actions="box")
    env.reset(seed=0)
    infos = env.step({"conv_0": np.array([69.0], np.float32), "conv_1": np.array([30.0], np.float32)})[-1]
    assert [infos[agent]["ratio"] for agent in env.possible_agents] == [69.0, 30.0]
    assert [infos[agent]["applied_ratio"] for agent in env.possible_agents] == pytest.approx([50.0, 10.0])


def test_a_seed_that_was_not_measured_is_answered_by_one_that_was(table):
    evaluator = dsfp_env.TableEvaluator(table)
    plan = {"conv_0": 50.0, "conv_1": 10.0}
    assert [evaluator.measured_seed(seed) for seed in (0, 2, 3, 7)] == [0, 2, 0, 1]
    assert evaluator.evaluate(plan, seed=7) == evaluator.evaluate(plan, seed=1)


def test_many_are_as_one_after_another(table):
    evaluator, plans = dsfp_env.TableEvaluator(table), [table.ratios_of(row) for row in (3, 7)]
    assert evaluator.evaluate_many(plans, [0, 1]) == [
        evaluator.evaluate(plans[0], 0),
        evaluator.evaluate(plans[1], 1),
    ]
    with pytest.raises(InputError, match="The seeds .0. came for 2 plans"):
        evaluator.evaluate_many(plans, [0])


def test_a_budget_masks_the_levels_of_the_table(table):
    env = dsfp_env.parallel_env(task=table, backend="table", actions="levels", reward="budget", macs_budget=0.3)
    within = []
    for seed in range(20):
        infos = env.reset(seed=seed)[1]
        actions = {agent: int(np.flatnonzero(infos[agent]["action_mask"])[0]) for agent in env.agents}
        within.append(env.step(actions)[-1]["conv_0"]["relative_macs"] <= 0.3)
    assert all(within)
    assert len(env.action_mask("conv_0")) == 3


def test_the_fidelity_can_be_the_other_one(table):
    wanted = dsfp_env.Fidelity(batches=0, batch_size=64)
    env = dsfp_env.parallel_env(task=table, backend="table", fidelity=wanted)
    plan = {"conv_0": 50.0, "conv_1": 10.0}
    assert env.evaluator.evaluate(plan, 0).accuracy == table.accuracies(0, fidelity="recalibrated")[3]


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"criterion": "l1"}, "made with criterion='dsfp', and 'l1' was asked for"),
        ({"min_filters": 4}, "min_filters=1"),
        ({"fidelity": dsfp_env.Fidelity(batches=5, batch_size=64)}, "was not made with {'batches': 5}"),
        ({"latency": dsfp_env.LatencyMeter()}, "latency=None"),
        ({"backend": "tables"}, "Did you mean 'table'"),
        ({"backend": "live"}, "expected backend='table'"),
        ({"reward": "accuracy_x_speed"}, "needs measured times"),
    ],
)
def test_what_a_table_cannot_do_is_refused(table, asked, sentence):
    def one_step():
        env = dsfp_env.parallel_env(**{"task": table, "backend": "table", **asked})
        env.reset(seed=0)
        env.step({agent: np.array([50.0]) for agent in env.agents})

    with pytest.raises(InputError) as refused:
        one_step()
    assert sentence in str(refused.value)


def test_every_wrapper_takes_it(table):
    import gymnasium

    from dsfp_env.testing import check_env

    check_env(lambda: dsfp_env.parallel_env(task=table, backend="table", actions="levels"))
    env = gymnasium.make("dsfp/LayerPruning-v0", task=table, backend="table", actions="levels")
    assert env.action_space.nvec.tolist() == [3, 3]
    env.reset(seed=0)
    assert env.step(np.array([1, 2]))[1] == table.scores(seed=0)[5]


def test_learning_on_it_twice_is_learning_the_same(table):
    import agents

    env = dsfp_env.parallel_env(task=table, backend="table", actions="levels")

    def scores():
        history = agents.train(env, agents.Independent(agents.QLearning, env, seed=0), evaluations=50, seed=0)
        return [evaluation.score for evaluation in history]

    assert scores() == scores()
    assert max(scores()) == table.scores(seed=0).max()  # nine joint actions, fifty evaluations


@pytest.mark.parametrize("ask", ["original", "optimum", "pareto"])
def test_a_split_that_there_is_not_gets_a_sentence(ask):
    with pytest.raises(InputError, match=r"Unknown split of a table 'tests'. Did you mean 'test'\?"):
        getattr(dsfp_env.load_table("digits"), ask)(split="tests")
