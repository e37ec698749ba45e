"""``python -m agents.leaderboard``."""

import sys

from agents.leaderboard.settings import DESCRIPTION, LeaderboardSettings
from dsfp_env.common import command_line

if __name__ == "__main__":
    command_line.answer_early(LeaderboardSettings, DESCRIPTION)
    from agents.leaderboard.runs import main  # imports torch, which takes seconds

    sys.exit(main())
