"""A suite of networks whose joint actions are known, for policies that are carried from one to others.

    env = dsfp_env.suite.multi_task_env("training")
    observations, infos = env.reset(seed=0)                       # a network is drawn
    observations, infos = env.reset(options={"task": "digits"})   # or told, if it is among them

Held-out networks differ from those of training in depth or width, not by their seed alone, and one in its images
too. Two are large, of 13 and 19 layers: what they are worth a surrogate tells, since nobody measures all of their
joint actions. docs/transfer.md says what they are, how well policies do on them, and how each table is made anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dsfp_env.common.choices import choose
from dsfp_env.common.errors import InputError, shortened
from dsfp_env.environment.env import LayerPruningEnv
from dsfp_env.layer_pruning_v0 import parallel_env
from dsfp_env.surrogates.files import MODEL
from dsfp_env.surrogates.surrogate import SHIPPED, Surrogate
from dsfp_env.tables.table import SHIPPED as TABLES
from dsfp_env.tables.table import Table
from dsfp_env.wrappers.comparable import ComparableEnv
from dsfp_env.wrappers.multi_task import MultiTaskEnv

Network = str | Table | Surrogate
"""A table or a surrogate, or its name or folder."""

TRAINING: tuple[str, ...] = (
    "digits-three-narrow",
    "digits-three-wide",
    "digits-four-narrow",
    "digits-four-plain",
    "digits-four-kernel5",
    "digits-four-flat",
    "digits-five",
)
HELD_OUT: tuple[str, ...] = ("digits", "digits-five-falling", "small-vgg-16px")
LARGE: tuple[str, ...] = ("vgg16-bn", "resnet20")  # held out, too
PARTS: Mapping[str, tuple[str, ...]] = {"training": TRAINING, "held_out": HELD_OUT, "large": LARGE}


def networks_of(networks: str | Iterable[Network]) -> tuple[Network, ...]:
    """The networks that are meant.

    Args:
        networks: ``"training"``, ``"held_out"``, ``"large"``, or networks.

    Raises:
        InputError: If they are none of these.
    """
    if isinstance(networks, str):
        return choose("part of the suite", networks, PARTS)
    found = tuple(networks) if isinstance(networks, Iterable) else ()
    if not found:
        raise InputError(
            f"The networks are {shortened(networks)}: expected 'training', 'held_out', 'large', or some of them."
        )
    return found


def network_env(network: Network, **kwargs: Any) -> LayerPruningEnv:
    """The environment of one network, from its table or surrogate.

    Args:
        network: One of the suite, or another.
        **kwargs: As for `parallel_env`, but for those that say how to measure.

    Raises:
        InputError: As `parallel_env` does.
    """
    return parallel_env(task=network, backend=backend_of(network), **kwargs)


def multi_task_env(
    networks: str | Iterable[Network] = "training",
    *,
    comparable: bool = True,
    seed: int | None = None,
    **kwargs: Any,
) -> MultiTaskEnv:
    """An environment that plays every episode on one of several networks, by their names; see `MultiTaskEnv`.

    Args:
        networks: As for `networks_of`.
        comparable: Whether features and rewards mean the same in every network; see `ComparableEnv`.
        seed: Draws the networks of episodes.
        **kwargs: As for `network_env`.

    Raises:
        InputError: If an argument is not what was expected.
    """
    envs = {name_of(one): network_env(one, **kwargs) for one in networks_of(networks)}
    return MultiTaskEnv({name: ComparableEnv(env) if comparable else env for name, env in envs.items()}, seed)


def name_of(network: Network) -> str:
    """What a network is called: as its folder is."""
    return (network.folder if isinstance(network, (Table, Surrogate)) else Path(network)).name


def known_networks() -> list[str]:
    """The tables and surrogates that come with the package, by name."""
    return sorted({folder.name for place in (TABLES, SHIPPED) for folder in place.iterdir() if folder.is_dir()})


def backend_of(network: Network) -> str:
    """``"surrogate"`` or ``"table"``: what is known of a network."""
    if isinstance(network, (Table, Surrogate)):
        return type(network).__name__.lower()
    found = any((place / network / MODEL).exists() for place in (SHIPPED, Path()))
    return "surrogate" if found else "table"
