"""What people give by hand, from the command line or from Python: it is used, or refused with a sentence."""

import copy
import sys
import time

import numpy as np
import pytest

import dsfp_env
from agents.leaderboard import runs as leaderboard
from agents.learners.q_learning import QLearning
from agents.loop import best, play, train
from agents.registry import AGENTS, choose_agent
from agents.reporting.run_folder import check_claim, write_json
from agents.reporting.seeds import parse_seeds
from agents.reproduce.settings import StudySettings
from agents.trial import check_learners
from dsfp_env import Fidelity, InputError
from dsfp_env.common import command_line
from dsfp_env.common.ranges import Count, Range, Share, check_numbers
from dsfp_env.evaluation.executors.ray_cluster import Ray
from dsfp_env.evaluation.rewards import reward_function
from dsfp_env.tasks.loading import load_task
from dsfp_env.tasks.options import TaskOptions
from dsfp_env.toy import ToyEnv

MODULE = """
import math
team_denied = type("T", (), {"team": False, "__init__": lambda self, env, seed: env.possible_agents})
raising = type("R", (), {"__init__": lambda self, *args: 1 / 0})
odd_actions = type("O", (), {"actions": "both"})
number = 7
def raises_value_error(*args): raise ValueError("no disk")
def gives_none(*args): return None
def gives_lists(evidence): return {path: [1.0] for path in evidence.layers}
class ActRaises:
    def __init__(self, *args): pass
    def act(self, observation, info, *, deterministic=False): raise KeyError("boom")
    def update(self, transition): return transition.missing
class UpdateRaises(ActRaises):
    def act(self, observation, info, *, deterministic=False): return 3
class TeamRaises:
    team = True
    def __init__(self, env, seed): self.env = env
    def act(self, observations, infos, *, deterministic=False): return dict.fromkeys(observations, 3)
    def update(self, transition): return transition.nothing
def as_text(outcome, original): return "much"
def as_dict(outcome, original): return {"score": 1}
def as_nan(outcome, original): return math.nan
def as_zero_division(outcome, original): return 1 / 0
def as_array(outcome, original):
    import numpy
    return numpy.float32(0.5)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Modules of the user's own, one of them with an error of syntax, one that raises."""
    (tmp_path / "own_things.py").write_text(MODULE)
    (tmp_path / "own_syntax.py").write_text("def broken(:\n")
    (tmp_path / "own_raises.py").write_text("raise RuntimeError('no licence')\n")
    (tmp_path / "own_exits.py").write_text("raise SystemExit(4)\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("own_things", "own_syntax", "own_raises", "own_exits"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("value", ["abc", "-1", "1e999", "-1e999", "None", "True", "'x'", "[1]"])
@pytest.mark.parametrize(
    ("agent", "option"), [(name, option) for name, entry in AGENTS.items() for option in entry.options or ()]
)
def test_every_option_of_every_learner_has_a_range(agent, option, value):
    fine = {"pareto": ("True",), "prior_mean": ("-1",), "initial_value": ("-1",), "mutation": ("None",)}
    fine["final_window"] = ("None",)
    fine["population"] = ("None",) if agent == "cma_es" else ()
    if option == "pareto":
        pytest.skip("a truth value")
    text = f"{agent}({option}={value})"
    if value in fine.get(option, ()):
        choose_agent(text)
        return
    with pytest.raises(InputError, match=f"{option} = .*cannot be used: expected a (whole )?number"):
        choose_agent(text)


def test_numbers_are_checked_in_python_too():
    with pytest.raises(InputError, match="option of QLearning: step_size = 2 cannot be used: expected a number"):
        QLearning("a", None, None, None, step_size=2)


def test_ranges_by_hand():
    def function(a: Share, b: Count | None = None, c: int = 0, d: "NoSuchType" = None):  # noqa: F821
        pass

    check_numbers("x", {"a": -1}, function)  # annotations that cannot be read promise nothing
    function.__annotations__.pop("d")
    for fine in ({"a": 0}, {"a": np.float32(0.5)}, {"b": None}, {"b": np.int64(3)}, {"c": "anything"}):
        check_numbers("x", fine, function)
    for wrong in ({"a": -0.1}, {"a": np.nan}, {"a": True}, {"a": "0.5"}, {"b": 0}, {"b": 1.0}):
        with pytest.raises(InputError, match="The x [ab] = "):
            check_numbers("x", wrong, function)
    assert Range("x", bool).holds(1)


@pytest.mark.parametrize(
    ("agent", "sentence"),
    [
        ("own_syntax:Agent", "Could not import the agent 'own_syntax:Agent' .*invalid syntax"),
        ("own_raises:Agent", "Could not import the agent .*no licence"),
        ("own_things:Nobody", "Could not import the agent .*Nobody"),
        ("own_things:number", "is of type int: expected a class"),
        ("own_things:odd_actions", "Unknown kind of actions of the agent 'own_things:odd_actions': 'both'"),
    ],
)
def test_an_agent_of_ones_own_that_is_none(own, agent, sentence):
    with pytest.raises(InputError, match=sentence):
        choose_agent(agent)


@pytest.mark.parametrize(
    ("agent", "sentence"),
    [
        (
            "own_things:raising",
            "could not be made .ZeroDivisionError: .*called as own_things:raising.agent",
        ),
        ("own_things:team_denied", "a class for all agents at once says team = True"),
        ("own_things:gives_none", r"'own_things:gives_none' gave None .*: expected an object with act"),
    ],
)
def test_an_agent_of_ones_own_that_cannot_be_made(own, tiny, agent, sentence):
    env = dsfp_env.parallel_env(task=tiny)
    with pytest.raises(InputError, match=sentence):
        choose_agent(agent).make(env, 0, 10)


@pytest.mark.parametrize(
    ("agent", "sentence"),
    [
        ("ActRaises", r"'own_things:ActRaises' failed in act(_many)? .KeyError: 'boom'; own_things.py, line"),
        ("UpdateRaises", "failed in update .AttributeError: .*'missing'; own_things.py, line"),
        ("TeamRaises", "failed in update .AttributeError: .*'nothing'; own_things.py, line"),
    ],
)
def test_an_agent_of_ones_own_that_raises_while_it_learns(own, agent, sentence):
    env = ToyEnv(actions="levels")
    team = copy.deepcopy(choose_agent(f"own_things:{agent}").make(env, 0, 10))
    for batch in (1, 2):
        with pytest.raises(InputError, match=sentence) as told:
            train(env, team, 4, batch=batch, seed=0)
        assert not isinstance(told.value.__cause__, InputError)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "own_things:raises_value_error",
            "failed .ValueError: no disk.: expected a function of .data_root, device, seed",
        ),
        ("own_things:gives_none", "gave a NoneType: expected a dsfp_env.Task"),
        ("own_things:number", "is of type int: expected a function of .data_root, device, seed"),
        ("own_exits:task", "Could not import the task 'own_exits:task' .it ends with SystemExit.4."),
    ],
)
def test_a_task_of_ones_own_that_is_none(own, name, sentence):
    with pytest.raises(InputError, match=sentence):
        load_task(name)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "raises_value_error",
            "'own_things:raises_value_error' failed .ValueError: no disk.: expected a function",
        ),
        ("gives_none", "gave None: expected a function"),
        ("gives_lists", r"gave layer '.*' \[1.0\]: expected a tensor"),
    ],
)
def test_a_criterion_of_ones_own_that_gives_no_scores(own, tiny, name, sentence):
    with pytest.raises(InputError, match=sentence):
        dsfp_env.score_filters(tiny, f"own_things:{name}")


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ({"layers": ""}, "The layers '' name none"),
        ({"layers": " , "}, "The layers ' , ' name none"),
        ({"tie": ""}, "The ties '' lack a name"),
        ({"tie": "a+"}, "The ties 'a\\+' lack a name"),
    ],
)
def test_layers_and_ties_that_say_nothing(option, sentence):
    with pytest.raises(InputError, match=sentence):
        TaskOptions(**option).check()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("as_text", "gave 'much', no finite number, for Outcome"),
        ("as_dict", "gave {'score': 1}"),
        ("as_nan", "gave nan"),
        (
            "as_zero_division",
            "'own_things:as_zero_division' failed .ZeroDivisionError: division by zero",
        ),
    ],
)
def test_a_reward_of_ones_own_that_is_no_number(own, tiny, name, sentence):
    env = dsfp_env.parallel_env(task=tiny, reward=f"own_things:{name}")
    env.reset(seed=0)
    with pytest.raises(InputError, match=sentence):
        env.step({agent: env.action_space(agent).sample() for agent in env.agents})


def test_a_reward_of_ones_own_may_be_a_number_of_numpy(own):
    assert reward_function("own_things:as_array")(None, None) == 0.5
    with pytest.raises(InputError, match="The reward 'own_things:number' is of type int"):
        reward_function("own_things:number")


@pytest.mark.parametrize("seed", [-1, 2**32, 2**63, 2**70, 1.5, "0", True, None])
def test_seeds_have_a_range(seed):
    with pytest.raises(InputError, match="The seed of the task is .*expected a whole number from 0 to 4294967295"):
        load_task("digits", seed=seed)


@pytest.mark.parametrize("again", [["--known", "b"], ["--known=b"]])
def test_a_list_is_said_once(again, capsys):
    done = []
    assert command_line.run(StudySettings, done.append, None, ["--known", "a", *again]) == 2
    assert "--known is said 2 times: expected all its values after one" in capsys.readouterr().err
    assert command_line.run(StudySettings, done.append, None, ["--known", "a", "b"]) == 0
    assert [settings.known for settings in done] == [("a", "b")]


def test_seeds_on_the_command_line_have_a_range():
    assert parse_seeds("4294967295") == [2**32 - 1]
    for text in ("4294967296", "0-99999999999999"):
        with pytest.raises(InputError, match="--seeds is .*expected a whole number from 0 to 4294967295"):
            parse_seeds(text)


@pytest.mark.parametrize("size", [-5, 0, 100_000])
def test_image_sizes_have_a_range(size):
    with pytest.raises(InputError, match=f"The image size is {size}: expected pixels"):
        load_task("imagefolder:somewhere", image_size=size)


def test_threads_have_a_range():
    with pytest.raises(InputError, match="Fidelity.threads is 100000: expected a whole number from 0 to"):
        Fidelity(threads=100_000)


@pytest.mark.parametrize("name", ["min_filters", "round_to"])
@pytest.mark.parametrize("number", [0, 99_999, 1.5, None])
def test_numbers_of_filters_have_a_range(tiny, name, number):
    with pytest.raises(InputError, match=f"{name} is {number}: expected a whole number from 1 to 6"):
        dsfp_env.Evaluator(tiny, **{name: number})


@pytest.mark.parametrize("workers", [0, -1, 1.5, "x", True, 10**9])
@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_workers_are_a_number_wherever_work_is_done(tiny, executor, workers):
    evaluator = dsfp_env.Evaluator(tiny, executor=executor)
    with pytest.raises(InputError, match="workers is .*: expected a number of processes"):
        evaluator.evaluate_many([dict.fromkeys(tiny.agents, 50.0)] * 2, seed=0, workers=workers)


def test_an_executor_of_ones_own_that_lacks_something(tiny):
    lacking = type("Lacking", (), {"begin": None, "check": None})()
    with pytest.raises(InputError, match="of type Lacking, without count, suits, stop: expected one of serial"):
        dsfp_env.Evaluator(tiny, executor=lacking)
    with pytest.raises(InputError, match="neither a word nor a number is in quotes"):
        dsfp_env.Evaluator(tiny, executor="ray(address=head:6379)")


def test_ties_that_can_be_read_once_only_are_kept(tiny):
    first, second, *_ = tiny.agents
    wanted = list(tiny.with_layers(tie=[[first, second]]).agents)
    for tie in ((group for group in [[first, second]]), [iter([first, second])], np.array([[first, second]])):
        env = copy.deepcopy(dsfp_env.parallel_env(task=tiny, tie=tie))
        assert env.possible_agents == wanted


@pytest.mark.parametrize("address", ["", " ", 6379, "ray://head:10001"])
def test_an_address_that_is_none(address):
    with pytest.raises(InputError, match="The address is .*expected auto or host:port"):
        Ray(address=address)


@pytest.mark.parametrize("budget", [None, "8", 1.5, float("inf"), True])
def test_a_budget_is_a_whole_number(budget):
    env = ToyEnv(actions="levels")
    with pytest.raises(InputError, match="The budget is .*: expected a whole number of evaluations"):
        train(env, choose_agent("q_learning").make(env, 0, 10), budget)


@pytest.mark.parametrize("team", [None, QLearning, "q_learning"])
def test_a_team_acts(team):
    for use in (lambda: train(ToyEnv(), team, 4), lambda: play(ToyEnv(), team)):
        with pytest.raises(InputError, match="The team is .*: expected learners of all agents"):
            use()
    with pytest.raises(InputError, match="The history is empty"):
        best([])


def test_one_learner_at_least():
    with pytest.raises(InputError, match="No learner is named: expected one or more"):
        check_learners([], 10)


def test_an_environment_in_turns_is_not_trained_on(tiny):
    with pytest.raises(InputError, match="The environment is turn-based: expected a parallel one"):
        train(dsfp_env.env(task=tiny), choose_agent("uniform").make(ToyEnv("box"), 0, 4), 4)


def test_a_leaderboard_of_no_reward_and_a_comparison_in_the_folder_of_a_run(tmp_path):
    with pytest.raises(InputError, match="--rewards names none"):
        leaderboard.check(leaderboard.LeaderboardSettings(rewards=(), out=str(tmp_path)))
    write_json(tmp_path / "settings.json", {"settings": {}, "versions": {}})
    with pytest.raises(InputError, match="holds a run, not a comparison: choose another"):
        check_claim(tmp_path, "a comparison", {})


def test_a_batch_larger_than_the_budget_is_one_of_the_budget():
    env = ToyEnv(actions="levels")
    histories = [train(env, choose_agent("q_learning").make(env, 0, 10), 5, batch=k, seed=0) for k in (5, 10**12)]
    first, second = ([one.actions for one in history] for history in histories)
    assert first == second


def test_a_cluster_that_nobody_keeps_is_refused_at_once():
    pytest.importorskip("ray")
    started = time.monotonic()
    with pytest.raises(InputError, match="The Ray cluster at 127.0.0.1:1 cannot be used .*refused"):
        Ray(address="127.0.0.1:1").begin(len)
    assert time.monotonic() - started < 30
