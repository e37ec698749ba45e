"""Whether an environment, or a learner, keeps the rules: `check_env` and `check_agent`, for tests of your own.

They are stricter than PettingZoo's tests, which miss mistakes as common as swapped terminations and truncations.
What is wrong is said in one sentence: which method, which agent, what was expected, what came, and how to mend it.

    from dsfp_env.testing import check_agent, check_env

    check_env(lambda: dsfp_env.parallel_env(task="digits"))
    check_agent(HillClimber)
"""

from dsfp_env.testing.agent_checks import check_agent as check_agent
from dsfp_env.testing.checking import CheckError as CheckError
from dsfp_env.testing.env_checks import check_env as check_env
