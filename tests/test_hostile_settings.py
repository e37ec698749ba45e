"""Anything for any option of any command: it is used, or refused with a sentence before anything is loaded."""

import dataclasses

import pytest
import tyro
from hostile import NUMBERS, examples, try_all
from hypothesis import strategies as st
from tables import make_table

import dsfp_env
import train_agents
from agents.compare import runs as compare
from agents.leaderboard import runs as leaderboard
from agents.main_job.asked import check
from agents.main_job.judging import board_settings
from agents.reproduce import study
from dsfp_env import InputError, tabulate
from dsfp_env.datasets.__main__ import Download


def checked_run(settings):
    if settings.backend == "table":
        leaderboard.check(board_settings(settings))
    else:
        check(settings)


COMMANDS = {
    "train_agents": (train_agents.RunSettings, checked_run, []),
    "compare": (compare.ComparisonSettings, compare.check, ["--agents", "ucb1"]),
    "leaderboard": (leaderboard.LeaderboardSettings, leaderboard.check, ["--agents", "ucb1", "--table", "hand"]),
    "reproduce": (study.StudySettings, lambda settings: study.Study(settings).check(), []),
    "tabulate": (tabulate.TableSettings, tabulate.check, ["--out", "out"]),
    "datasets": (Download, lambda settings: None, ["cifar10"]),
}
TELLING = [
    *("", " ", "\0", "-1", "0", "1e999", "nan", "None", "True", "9" * 5000, "1" * 30, "0x10", "1_000", "²", "٣"),
    *("0-4", "4-0", "0-4294967295", "-", ",", "0,0", "1/2", "0/1", f"1/{'9' * 5000}", "--", "--help=", "a" * 5000),
    *("digits", "digits-", "cifar10-", "cifar10-vgg16", "imagefolder:", "imagefolder:\0", "imagefolder:/proc"),
    *(":", "a:", ":a", "os:sep", "math:pi", "no.such:thing", "hand", "/dev/zero", "/dev/null", "/proc", "/", "."),
    *(
        "ucb1",
        "all",
        "ucb1@",
        "ucb1@difference",
        "ucb1(",
        "ucb1()",
        "ucb1(a=1)",
        "ucb1(exploration=1e999)",
        "\ud800",
    ),
    *("dsfp(kl=fisher)", "dsfp(kl={}.x)", "fast(epochs=10)", "fast(epochs=1e9)", "fast(shift=-1)", "(((((" * 400),
    *(
        "budget",
        "budget(macs_budget=0.1)",
        "budget(macs_budget=[])",
        "box",
        "table",
        "live",
        "cpu",
        "cuda:99",
        "meta",
    ),
    *(
        "x(y={[]:1})",
        "x(**{})",
        "x(y=" + "-" * 9000 + "1)",
        "runs/out",
        "a/" * 3000,
        "nowhere/out",
        "DEFAULT",
        "x.pt",
    ),
]
VALUES = st.one_of(st.sampled_from(TELLING), NUMBERS.map(repr), st.text(max_size=12))


@examples(6, 3000)
@pytest.mark.parametrize("command", COMMANDS)
def test_options(tmp_path, monkeypatch, capsys, command, count):
    monkeypatch.chdir(tmp_path)
    make_table(tmp_path / "hand")
    table, load = dsfp_env.load_table("hand"), dsfp_env.load_table
    monkeypatch.setattr(dsfp_env, "load_table", lambda name: table if name in ("hand", "digits") else load(name))
    monkeypatch.setattr(train_agents.RunSettings, "load", None)
    kind, check, always = COMMANDS[command]
    flags = [f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(kind)]
    given = st.lists(st.tuples(st.sampled_from(flags), st.lists(VALUES, max_size=2)), min_size=1, max_size=2)

    def asked(options):
        words = [word for flag, values in options for word in (flag, *values)]
        try:
            settings = tyro.cli(kind, args=[*always, *words])
        except SystemExit as end:
            said = capsys.readouterr()
            if said.err.strip() if end.code == 2 else said.out and not end.code:
                raise InputError(said.err or "this is the help") from end
            raise
        check(settings)

    def one(flag, value):
        asked([(flag, [value])])

    try_all(f"options of {command}", count, asked, given)
    try_all(f"an option of {command}", count, one, st.sampled_from(flags), VALUES)
