"""The environment in other clothes. A wrapper changes the interface, never what is measured."""

from typing import TYPE_CHECKING, Any

from dsfp_env.wrappers.centred_actions import CentredActionsEnv as CentredActionsEnv
from dsfp_env.wrappers.comparable import ComparableEnv as ComparableEnv
from dsfp_env.wrappers.joint_action import JointActionEnv as JointActionEnv
from dsfp_env.wrappers.layer_by_layer import LayerByLayerEnv as LayerByLayerEnv
from dsfp_env.wrappers.layer_by_layer_vector import LayerByLayerVectorEnv as LayerByLayerVectorEnv
from dsfp_env.wrappers.multi_objective import VectorRewardEnv as VectorRewardEnv
from dsfp_env.wrappers.multi_objective import VectorRewardJointActionEnv as VectorRewardJointActionEnv
from dsfp_env.wrappers.multi_task import MultiTaskEnv as MultiTaskEnv
from dsfp_env.wrappers.surrogate_vector import SurrogateVectorEnv as SurrogateVectorEnv
from dsfp_env.wrappers.table_vector import TableVectorEnv as TableVectorEnv
from dsfp_env.wrappers.together import step_together as step_together
from dsfp_env.wrappers.vector import VectorJointActionEnv as VectorJointActionEnv

if TYPE_CHECKING:
    from dsfp_env.wrappers.layer_by_layer_vec_env import LayerByLayerVecEnv as LayerByLayerVecEnv
    from dsfp_env.wrappers.side_by_side import SideBySideVecEnv as SideBySideVecEnv
    from dsfp_env.wrappers.vec_env import ParallelVecEnv as ParallelVecEnv
else:

    def __getattr__(name: str) -> Any:
        """Import what is Stable-Baselines3's kind when it is asked for: the library takes seconds to import."""
        if name == "LayerByLayerVecEnv":
            from dsfp_env.wrappers.layer_by_layer_vec_env import LayerByLayerVecEnv

            return LayerByLayerVecEnv
        if name == "ParallelVecEnv":
            from dsfp_env.wrappers.vec_env import ParallelVecEnv

            return ParallelVecEnv
        if name == "SideBySideVecEnv":
            from dsfp_env.wrappers.side_by_side import SideBySideVecEnv

            return SideBySideVecEnv
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
