"""``python -m agents.leaderboard``."""

import sys

from agents.leaderboard.runs import main

if __name__ == "__main__":
    sys.exit(main())
