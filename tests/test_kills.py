"""Every command, killed again and again at random times: it goes on, and ends as if nobody had.

What is killed is the command, all of its processes, a worker, or whatever else it has started; or it is asked to
end. ``python tests/test_kills.py 12 0`` kills each twelve times, and prints the rows of docs/reliability.md.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import util
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

HERE = Path(__file__).parent
MARK = "DSFP_ENV_KILLED"  # in the environment of a command and of whatever it starts
TASK = "counted_tasks:counted"
RUN = ("--task", TASK, "--evaluations", "12", "--criterion", "l1", "--kd-batches", "1")
TABLE = ("--task", TASK, "--levels", "10", "40", "60", "90", "--seeds", "0", "5")
COMPARED = ("--task", TASK, "--agents", "random_search", "q_learning", "--budgets", "6", "12", "--seeds", "0-1")
JUDGED = ("--agents", "ucb1", "q_learning", "--seeds", "0-49", "--evaluations", "40")
HOW = ("command", "command", "all", "worker", "helper", "SIGTERM", "Ctrl-C")  # what is killed


class Command(NamedTuple):
    """What is killed."""

    program: tuple[str, ...]
    module: str
    arguments: tuple[str, ...]
    under_way: int = 5  # networks that may be measured again after a kill

    @property
    def words(self) -> list[str]:
        """Of its command line."""
        return [sys.executable, *self.program, *self.arguments]


def trained(*arguments: str, under_way: int = 5) -> Command:
    """A run of `train_agents.py`."""
    return Command((str(HERE.parent / "train_agents.py"),), "train_agents", (*RUN, *arguments), under_way)


COMMANDS = {
    "train_agents, 1 worker, no store": trained("--no-store", "--workers", "1", "--out", "out"),
    "train_agents, 2 workers, store": trained("--workers", "2", "--out", "out"),
    "train_agents, 2 workers, no store": trained("--no-store", "--workers", "2", "--out", "out", under_way=90),
    "train_agents, without --out": trained("--no-store", "--workers", "1"),
    "train_agents, --seeds": trained("--no-store", "--workers", "1", "--seeds", "0-1", "--out", "out"),
    "train_agents, PPO": trained("--no-store", "--workers", "1", "--agent", "ppo(n_steps=4)", "--out", "out"),
    "train_agents, NSGA-II": trained("--no-store", "--workers", "1", "--agent", "nsga2", "--out", "out"),
    "train_agents, difference credit, 2 workers": trained(
        *("--credit", "difference", "--horizon", "2", "--macs-budget", "0.5", "--workers", "2", "--out", "out"),
    ),
    "train_agents, --backend table, without --out": Command(
        (str(HERE.parent / "train_agents.py"),),
        "train_agents",
        ("--backend", "table", "--agent", "ucb1", "--seeds", "0-49", "--evaluations", "40", "--workers", "2"),
    ),
    "tabulate, 1 worker": Command(
        ("-m", "dsfp_env.tabulate"), "dsfp_env.tabulate", (*TABLE, "--workers", "1", "--out", "out")
    ),
    "tabulate, 2 workers": Command(
        ("-m", "dsfp_env.tabulate"), "dsfp_env.tabulate", (*TABLE, "--workers", "2", "--out", "out")
    ),
    "tabulate, --part, 2 workers": Command(
        ("-m", "dsfp_env.tabulate"),
        "dsfp_env.tabulate",
        (*TABLE, "--part", "2/2", "--workers", "2", "--out", "out"),
    ),
    "compare, 1 worker": Command(
        ("-m", "agents.compare"), "agents.compare.runs", (*COMPARED, "--workers", "1", "--out", "out")
    ),
    "compare, 2 workers": Command(
        ("-m", "agents.compare"), "agents.compare.runs", (*COMPARED, "--workers", "2", "--out", "out")
    ),
    "leaderboard, 1 worker": Command(
        ("-m", "agents.leaderboard"), "agents.leaderboard.runs", (*JUDGED, "--workers", "1", "--out", "out")
    ),
    "leaderboard, 2 workers, without --out": Command(
        ("-m", "agents.leaderboard"), "agents.leaderboard.runs", (*JUDGED, "--workers", "2")
    ),
    "reproduce": Command(
        ("-m", "agents.reproduce"),
        "agents.reproduce.study",
        (
            *("--network", "counted_tasks:make_small", "--data", "imagefolder:images", "--rates", "50"),
            *("--evaluations", "20", "--criterion", "taylor", "--pretraining", "fast(epochs=6, batch_size=16)"),
            *("--fine-tuning", "short(epochs=6, batch_size=16)", "--device", "cpu", "--out", "out"),
        ),
        under_way=20,
    ),
}


class Started:
    """A command that runs in a folder, in a group of processes of its own, and all that it starts.

    Args:
        command: The command.
        folder: Where it runs.
        cache: For its ``DSFP_ENV_CACHE``.
        warm: Whether it is forked from this process, which has imported all, rather than begun from nothing.
    """

    def __init__(self, command: Command, folder: Path, cache: Path, warm: bool) -> None:
        self.mark, self.errors_file = f"{random.SystemRandom().getrandbits(64):016x}", folder / "errors"
        changed = {
            "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]),
            "DSFP_ENV_CACHE": str(cache),
            "OMP_NUM_THREADS": "1",
            "COUNTED_IN": str(folder / "measured"),
            MARK: self.mark,
        }
        self.pid, self._status = os.fork(), None
        if not self.pid:
            try:
                os.setsid()
                os.chdir(folder)
                os.environ.update(changed)
                self._be(command, warm)
            finally:
                os._exit(99)

    def _be(self, command: Command, warm: bool) -> None:
        """In the process that was forked."""
        nothing, errors = (
            os.open(os.devnull, os.O_RDWR),
            os.open(self.errors_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        )
        for place, file in enumerate((nothing, nothing, errors)):
            os.dup2(file, place)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if not warm:
            os.execv(sys.executable, command.words)
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(place, mode) for place, mode in ((0, "r"), (1, "w"), (2, "w"))
        )
        sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
        sys.argv = [command.program[-1], *command.arguments]
        warnings.simplefilter("default")  # as for a command, not as for tests
        try:
            status = importlib.import_module(command.module).main()
        except BaseException:
            traceback.print_exc()
            status = 1
        end_as_the_interpreter(status)

    def wait(self, seconds: float) -> int | None:
        """The exit status, negative for a signal, or None if it does not end in this time."""
        deadline = time.monotonic() + seconds
        while self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() >= deadline:
                break
            else:
                time.sleep(0.01)
        return self._status

    @property
    def others(self) -> list[int]:
        """Whatever it has started that lives, by number of the process."""
        return [pid for pid in marked(self.mark) if pid != self.pid]

    def end(self, what: str, rng: random.Random) -> bool:
        """Kill, or ask it to end; returns whether there was something to be killed."""
        if self.wait(0) is not None:
            return False
        if what in ("command", "SIGTERM"):
            os.kill(self.pid, signal.SIGKILL if what == "command" else signal.SIGTERM)
        elif what in ("all", "Ctrl-C"):
            with suppress(ProcessLookupError):  # it has not begun yet to be a group
                os.killpg(self.pid, signal.SIGKILL if what == "all" else signal.SIGINT)
        else:
            while not (wanted := [pid for pid in self.others if what == "helper" or is_worker(pid)]):
                if self.wait(0.02) is not None:
                    return False
            if self.wait(rng.choice([0, 0.2, 1])) is not None:  # as it starts, or at its work
                return False
            with suppress(ProcessLookupError):
                os.kill(rng.choice(wanted), signal.SIGKILL)
        return True

    def check_nothing_left(self, seconds: float = 30.0) -> None:
        """See that all it has started ends, too; the server of processes may be importing torch."""
        deadline = time.monotonic() + seconds
        while (left := self.others) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not left, [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in left]

    def check_said(self, status: int) -> str:
        """See that standard error has sentences only; returns it."""
        said = self.errors_file.read_text()
        if status == -signal.SIGINT:  # Python itself says so while it imports the command
            return said
        for word in ("Traceback", "Exception ignored", "leaked", "Error:", "Fatal"):
            assert word not in said, said
        return said


def end_as_the_interpreter(status: int) -> None:
    """End this process, which was forked from a test, without going on with that."""
    try:
        util._exit_function()  # as at an ordinary exit: workers end
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def import_all() -> None:
    """Import what commands import, once."""
    for name in ("matplotlib.figure", "optuna", "sb3_contrib", *(one.module for one in COMMANDS.values())):
        importlib.import_module(name)


def marked(mark: str) -> Iterator[int]:
    """Processes that live and have the mark in their environment."""
    wanted = f"{MARK}={mark}".encode()
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    yield int(folder.name)


def is_worker(pid: int) -> bool:
    """Whether a process is a child of a server of processes."""
    with suppress(OSError, IndexError, ValueError):
        parent = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        return b"forkserver" in Path(f"/proc/{parent}/cmdline").read_bytes()
    return False


def prepared(folder: Path, images: Path | None) -> Path:
    """A folder for a command to run in."""
    folder.mkdir(parents=True)
    if images is not None:
        (folder / "images").symlink_to(images)
    return folder


def measured(folder: Path) -> int:
    """Networks that were pruned and fine-tuned by whatever ran in a folder."""
    log = folder / "measured"
    return log.stat().st_size if log.exists() else 0


def made(folder: Path) -> dict[str, bytes]:
    """What a command has made, by name of the file, without what tells of the clock."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and name not in ("measured", "errors") and not name.startswith("images"):
            found[name] = timeless(path)
    return found


def timeless(path: Path) -> bytes:
    """The content of a file, without times."""
    content = path.read_bytes()
    if path.name == "leaderboard.json":
        return json.dumps({**json.loads(content), "this_call": None}).encode()
    if path.name == "leaderboard.md":
        return re.sub(rb"This call took .*", b"", content)
    if path.name in ("seconds.npy", "rows.npy"):  # seconds, and checksums of them too
        array = np.load(path)
        return str((array.shape, array.dtype, bool((array > 0).all()))).encode()
    if path.name == "meta.json":
        meta = json.loads(content)
        files = {**meta.get("files", {}), "seconds.npy": None}
        return json.dumps({**meta, "files": files, "checksum": None}).encode()
    return content


class Tally(NamedTuple):
    """What became of a command."""

    kills: Counter[str]
    starts: int
    again: int  # networks that were measured again


def harass(name: str, place: Path, kills: int, seed: int, images: Path | None = None) -> Tally:
    """Kill a command so many times, each time at a random moment, start it again, and compare its end.

    Args:
        name: Of the command.
        place: Where it works.
        kills: How many.
        seed: Of the moments.
        images: A tree of images, for the command that needs one.
    """
    command, rng = COMMANDS[name], random.Random(f"{name} {seed}")
    import_all()
    whole, start = prepared(place / "whole", images), time.monotonic()
    unkilled = Started(command, whole, place / "cache of the whole", warm=True)
    assert unkilled.wait(600) == 0, unkilled.errors_file.read_text()
    unkilled.check_nothing_left()
    seconds, expected, cost = time.monotonic() - start, made(whole), measured(whole)

    done, starts, round_, again = Counter[str](), 0, 0, 0
    while done.total() < kills:
        round_ += 1
        folder, cache = prepared(place / f"killed {round_}", images), place / f"cache {round_}"
        of_round, deaths = 0, 0
        while True:
            starts += 1
            warm, what = rng.random() < 0.9, rng.choice(HOW)
            moment = rng.uniform(0, 0.8 * seconds if warm else seconds + 3)
            if what in ("worker", "helper"):
                moment = 0  # and then when there is one
            started = Started(command, folder, cache, warm)
            if done.total() < kills and of_round < 8 and started.wait(moment) is None:
                for _ in range(3 if what == "worker" and rng.random() < 0.3 else 1):
                    if started.end(what, rng):
                        done[what], of_round, deaths = done[what] + 1, of_round + 1, deaths + 1
                        time.sleep(0.3 if what == "worker" else 0)
            status = started.wait(300)
            assert status is not None, what
            started.check_nothing_left()
            said = started.check_said(status)
            if status == 0:
                break
            check_end(what, status, said)
        found, extra = made(folder), measured(folder) - cost
        assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
        assert not (differ := [name for name in expected if found[name] != expected[name]]), differ
        assert extra <= deaths * command.under_way, (extra, deaths)
        again += extra
    return Tally(done, starts, again)


def check_end(what: str, status: int, said: str) -> None:
    """See that a command that did not come to its end says so as it should."""
    if what in ("command", "all"):
        assert status == -signal.SIGKILL, (status, said)
    elif what in ("SIGTERM", "Ctrl-C"):
        number = signal.SIGTERM if what == "SIGTERM" else signal.SIGINT
        if status == -number:  # while Python itself was starting
            return
        assert status == 128 + number, (status, said)
        assert "the same command goes on" in said, said
    else:
        assert status == 2, (what, status, said)
        assert "error: " in said, said
        assert "the same command goes on" in said, said


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are looked for in /proc")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_is_killed_at_random_ends_as_if_not(
    name: str, tmp_path: Path, image_files: Path, store: object
) -> None:
    tally = harass(name, tmp_path, 8, 0, image_files if "reproduce" in name else None)
    assert tally.kills.total() >= 8


def main() -> None:
    """Print what became of every command whose name has one of the words given, or of all."""
    kills, seed, *words = sys.argv[1:]
    images = Path(os.environ["IMAGES"]) if "IMAGES" in os.environ else None
    for name in COMMANDS:
        if words and not any(word in name for word in words):
            continue
        place = Path(tempfile.mkdtemp(prefix="killed-"))
        tally = harass(name, place, int(kills), int(seed), images if "reproduce" in name else None)
        each = ", ".join(f"{count} {what}" for what, count in sorted(tally.kills.items()))
        print(f"| {name} | {tally.kills.total()} ({each}) | {tally.starts} | {tally.again} |", flush=True)
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
