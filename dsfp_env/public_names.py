"""What users import from `dsfp_env`, in one place; the package itself fetches it from here on first use."""

from __future__ import annotations

from dsfp_env import networks as networks
from dsfp_env import suite as suite
from dsfp_env.channels.costs import Costs as Costs
from dsfp_env.channels.graph import ChannelGraph as ChannelGraph
from dsfp_env.checkpoints import load_pruned as load_pruned
from dsfp_env.checkpoints import save_pruned as save_pruned
from dsfp_env.common.errors import InputError as InputError
from dsfp_env.environment.env import LayerPruningEnv as LayerPruningEnv
from dsfp_env.evaluation.allocation import allocate as allocate
from dsfp_env.evaluation.at_budget import AtBudget as AtBudget
from dsfp_env.evaluation.evaluator import Evaluator as Evaluator
from dsfp_env.evaluation.latency import LatencyMeter as LatencyMeter
from dsfp_env.evaluation.latency_predictor import LatencyPredictor as LatencyPredictor
from dsfp_env.evaluation.outcome import Outcome as Outcome
from dsfp_env.layer_pruning_v0 import env as env
from dsfp_env.layer_pruning_v0 import parallel_env as parallel_env
from dsfp_env.layer_pruning_v0 import raw_env as raw_env
from dsfp_env.surrogates.evaluator import SurrogateEvaluator as SurrogateEvaluator
from dsfp_env.surrogates.surrogate import Surrogate as Surrogate
from dsfp_env.surrogates.surrogate import load_surrogate as load_surrogate
from dsfp_env.tables.evaluator import TableEvaluator as TableEvaluator
from dsfp_env.tables.table import Table as Table
from dsfp_env.tables.table import load_table as load_table
from dsfp_env.tasks.loading import load_task as load_task
from dsfp_env.tasks.task import Task as Task
from dsfp_env.tasks.task import score_filters as score_filters
from dsfp_env.training.distillation import Fidelity as Fidelity
from dsfp_env.training.metrics import Metric as Metric
