"""What users import from `agents`, in one place; the package itself fetches it from here on first use."""

from __future__ import annotations

from agents.base import Agent as Agent
from agents.base import JointTransition as JointTransition
from agents.base import MultiAgent as MultiAgent
from agents.base import Transition as Transition
from agents.callbacks import Callback as Callback
from agents.learners.bandits import UCB1 as UCB1
from agents.learners.bandits import EpsilonGreedy as EpsilonGreedy
from agents.learners.bandits import GaussianThompson as GaussianThompson
from agents.learners.coordinate_search import CoordinateSearch as CoordinateSearch
from agents.learners.few_explorers import FewExplorers as FewExplorers
from agents.learners.gp_search import GPSearch as GPSearch
from agents.learners.independent import Independent as Independent
from agents.learners.joint_thompson import JointThompson as JointThompson
from agents.learners.linucb import LinUCB as LinUCB
from agents.learners.local_search import LocalSearch as LocalSearch
from agents.learners.policy_gradient import PolicyGradient as PolicyGradient
from agents.learners.q_learning import QLearning as QLearning
from agents.learners.random_search import RandomSearch as RandomSearch
from agents.learners.regression_bandit import RegressionBandit as RegressionBandit
from agents.learners.sequential_q_learning import SequentialQLearning as SequentialQLearning
from agents.learners.uniform import Uniform as Uniform
from agents.learners.value_decomposition import QMIX as QMIX
from agents.learners.value_decomposition import VDN as VDN
from agents.learners.warm_start import WarmStart as WarmStart
from agents.libraries.ask_tell import from_ask_tell as from_ask_tell
from agents.libraries.functions import from_function as from_function
from agents.libraries.sb3 import from_sb3 as from_sb3
from agents.loop import Evaluation as Evaluation
from agents.loop import best as best
from agents.loop import check_batch as check_batch
from agents.loop import check_budget as check_budget
from agents.loop import play as play
from agents.loop import train as train
