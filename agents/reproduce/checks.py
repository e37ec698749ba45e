"""What is refused of a study before anything is loaded or written, and in what words."""

from __future__ import annotations

from collections.abc import Collection

from agents.reproduce.settings import StudySettings
from agents.reproduce.targets import RANDOM, listed, rule_of
from agents.trial import check_learners, check_warm_start
from dsfp_env.common.devices import choose_device
from dsfp_env.common.errors import InputError
from dsfp_env.common.random_numbers import check_seed
from dsfp_env.common.ranges import MOST_THREADS
from dsfp_env.criteria.scoring import parse_criterion
from dsfp_env.evaluation.allocation import check_rule
from dsfp_env.evaluation.latency import parse_meter
from dsfp_env.training.recipes import FINE_TUNING, recipe_from

DIGITS = "digits", "digits_net"  # a task that has one network


def check_settings(settings: StudySettings) -> None:
    """Refuse settings that cannot be used, whatever is in their folder.

    Raises:
        InputError: If so.
    """
    epochs = recipe_from(settings.fine_tuning, FINE_TUNING).epochs
    if settings.finalist_epochs is not None and not 1 <= settings.finalist_epochs <= epochs:
        raise InputError(
            f"--finalist-epochs is {settings.finalist_epochs}: expected from 1 to the {epochs} of --fine-tuning."
        )
    settings.check_layers()
    settings.check_evaluation()
    settings.check_widths()
    check_learners(settings.agents or ["random_search"], settings.evaluations)  # a study may be of rules alone
    _check_targets(settings)
    check_warm_start(settings.warm_start, settings.agents, settings.evaluations)
    if settings.deployed is not None:
        parse_meter(settings.deployed)
    settings.place().check(choose_device(settings.device))
    if not settings.seeds or len(set(settings.seeds)) < len(settings.seeds):
        raise InputError(f"--seeds are {settings.seeds}: expected one or more, each 0 or more, and once.")
    for seed in settings.seeds:
        check_seed(seed, "One of --seeds")
    if not 1 <= settings.threads <= MOST_THREADS:
        raise InputError(f"--threads is {settings.threads}: expected from 1 to {MOST_THREADS}.")


def check_only(settings: StudySettings, pieces: Collection[str]) -> None:
    """Refuse names of pieces that there are not.

    Raises:
        InputError: If so.
    """
    for word in settings.only:
        if not any(name.startswith(word) for name in pieces):
            raise InputError(f"--only {word}: there is no such piece; there are: {listed(pieces)}.")


def _check_targets(settings: StudySettings) -> None:
    """Refuse rates, budgets and yardsticks that there cannot be."""
    if settings.data == DIGITS[0] and settings.network != DIGITS[1]:
        raise InputError(f"--data digits has a network of its own: expected --network {DIGITS[1]}.")
    if not all(10 <= rate <= 90 for rate in settings.rates or ()):
        raise InputError(f"--rates are {settings.rates}: expected percentages in [10, 90].")
    if not all(0 < share < 1 for share in settings.macs_budgets):
        raise InputError(f"--macs-budgets are {settings.macs_budgets}: expected shares in (0, 1).")
    if not settings.targets:
        raise InputError("There are neither --rates nor --macs-budgets: expected one or more.")
    names = [target.name for target in settings.targets]
    if double := [target.label for target in settings.targets if names.count(target.name) > 1]:
        raise InputError(
            f"Of --rates and --macs-budgets, {double[0]} came more than once: expected each once (of shares, "
            "six digits count)."
        )
    if settings.validation_images is not None and settings.validation_images < 1:
        raise InputError(f"--validation-images is {settings.validation_images}: expected 1 or more.")
    for yardstick in settings.yardsticks:
        rule, criterion = rule_of(yardstick)
        check_rule(rule, RANDOM)
        if criterion is not None:
            parse_criterion(criterion)
            if rule == RANDOM:
                raise InputError(f"--yardsticks {yardstick}: random search has no criterion but --criterion.")
