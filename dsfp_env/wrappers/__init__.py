"""The environment in other clothes. A wrapper changes the interface, never what is measured."""

from dsfp_env.wrappers.joint_action import JointActionEnv as JointActionEnv
from dsfp_env.wrappers.together import step_together as step_together
from dsfp_env.wrappers.vector import VectorJointActionEnv as VectorJointActionEnv
