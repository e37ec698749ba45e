"""Learn how many filters each convolution of a network can lose.

Importing this package registers the environment with PettingZoo (``dsfp/layer_pruning-v0``, parallel and AEC)
and with Gymnasium (``dsfp/LayerPruning-v0``, one controller with a joint action); and either with vector rewards
(``dsfp/multi_objective_layer_pruning-v0``, ``dsfp/MultiObjectiveLayerPruning-v0``).
"""

import gymnasium
import pettingzoo

from dsfp_env import networks as networks
from dsfp_env.channels.costs import Costs as Costs
from dsfp_env.channels.graph import ChannelGraph as ChannelGraph
from dsfp_env.checkpoints import load_pruned as load_pruned
from dsfp_env.checkpoints import save_pruned as save_pruned
from dsfp_env.common.errors import InputError as InputError
from dsfp_env.environment.env import LayerPruningEnv as LayerPruningEnv
from dsfp_env.evaluation.evaluator import Evaluator as Evaluator
from dsfp_env.evaluation.latency import LatencyMeter as LatencyMeter
from dsfp_env.evaluation.outcome import Outcome as Outcome
from dsfp_env.layer_pruning_v0 import env as env
from dsfp_env.layer_pruning_v0 import parallel_env as parallel_env
from dsfp_env.layer_pruning_v0 import raw_env as raw_env
from dsfp_env.tables.evaluator import TableEvaluator as TableEvaluator
from dsfp_env.tables.table import Table as Table
from dsfp_env.tables.table import load_table as load_table
from dsfp_env.tasks.loading import load_task as load_task
from dsfp_env.tasks.task import Task as Task
from dsfp_env.tasks.task import score_filters as score_filters
from dsfp_env.training.distillation import Fidelity as Fidelity
from dsfp_env.training.metrics import Metric as Metric

__version__ = "0.1.0"

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
    "dsfp/MultiObjectiveLayerPruning-v0",
    "dsfp_env.wrappers.multi_objective:VectorRewardJointActionEnv",
    disable_env_checker=True,  # it expects scalar rewards
)
