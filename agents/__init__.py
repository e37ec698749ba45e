"""Learners of pruning ratios, the protocol they follow, and the loop that runs them."""

from agents.ask_tell import from_ask_tell as from_ask_tell
from agents.base import Agent as Agent
from agents.base import JointTransition as JointTransition
from agents.base import MultiAgent as MultiAgent
from agents.base import Transition as Transition
from agents.functions import from_function as from_function
from agents.independent import Independent as Independent
from agents.loop import Evaluation as Evaluation
from agents.loop import best as best
from agents.loop import check_budget as check_budget
from agents.loop import play as play
from agents.loop import train as train
from agents.q_learning import QLearning as QLearning
from agents.random_search import RandomSearch as RandomSearch
from agents.regression_bandit import RegressionBandit as RegressionBandit
from agents.uniform import Uniform as Uniform
