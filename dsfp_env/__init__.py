"""Learn how many filters each convolution of a network can lose.

Importing this package registers the environment with PettingZoo (``dsfp/layer_pruning-v0``, parallel and AEC)
and with Gymnasium (``dsfp/LayerPruning-v0``, one controller with a joint action; ``dsfp/LayerByLayer-v0``, one
that decides layer by layer); and with vector rewards (``dsfp/multi_objective_layer_pruning-v0``,
``dsfp/MultiObjectiveLayerPruning-v0``).

The public names are those of `dsfp_env.public_names`. They come with torch, which takes seconds to import, so they
are fetched when the first of them is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium
import pettingzoo

from dsfp_env.common.lazily import names_of, public_name
from dsfp_env.common.release import VERSION

if TYPE_CHECKING:
    from dsfp_env.public_names import *  # noqa: F403

__version__ = VERSION

pettingzoo.register("parallel", "dsfp/layer_pruning-v0", "dsfp_env.layer_pruning_v0:parallel_env")
pettingzoo.register("aec", "dsfp/layer_pruning-v0", "dsfp_env.layer_pruning_v0:env")
pettingzoo.register(
    "parallel",
    "dsfp/multi_objective_layer_pruning-v0",
    "dsfp_env.wrappers.multi_objective:VectorRewardEnv",
)
gymnasium.register(
    "dsfp/LayerPruning-v0",
    "dsfp_env.wrappers.joint_action:JointActionEnv",
    vector_entry_point="dsfp_env.wrappers.vector:vector_env",
)
gymnasium.register(
    "dsfp/LayerByLayer-v0",
    "dsfp_env.wrappers.layer_by_layer:LayerByLayerEnv",
    vector_entry_point="dsfp_env.wrappers.layer_by_layer_vector:layer_by_layer_vector",
)
gymnasium.register(
    "dsfp/MultiObjectiveLayerPruning-v0",
    "dsfp_env.wrappers.multi_objective:VectorRewardJointActionEnv",
    disable_env_checker=True,  # it expects scalar rewards
)


def __getattr__(name: str) -> Any:
    """A public name, when the first is used; from then on all are here."""
    return public_name(__name__, name)


def __dir__() -> list[str]:
    return names_of(__name__)
