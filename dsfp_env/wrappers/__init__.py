"""The environment in other clothes. A wrapper changes the interface, never what is measured."""

from dsfp_env.wrappers.joint_action import JointActionEnv as JointActionEnv
