"""Learners of pruning ratios, the protocol they follow, and the loop that runs them."""

from agents.ask_tell import from_ask_tell as from_ask_tell
from agents.bandits import UCB1 as UCB1
from agents.bandits import EpsilonGreedy as EpsilonGreedy
from agents.bandits import GaussianThompson as GaussianThompson
from agents.base import Agent as Agent
from agents.base import JointTransition as JointTransition
from agents.base import MultiAgent as MultiAgent
from agents.base import Transition as Transition
from agents.coordinate_search import CoordinateSearch as CoordinateSearch
from agents.functions import from_function as from_function
from agents.independent import Independent as Independent
from agents.joint_thompson import JointThompson as JointThompson
from agents.linucb import LinUCB as LinUCB
from agents.loop import Evaluation as Evaluation
from agents.loop import best as best
from agents.loop import check_budget as check_budget
from agents.loop import play as play
from agents.loop import train as train
from agents.q_learning import QLearning as QLearning
from agents.random_search import RandomSearch as RandomSearch
from agents.regression_bandit import RegressionBandit as RegressionBandit
from agents.sb3 import from_sb3 as from_sb3
from agents.sequential_q_learning import SequentialQLearning as SequentialQLearning
from agents.uniform import Uniform as Uniform
