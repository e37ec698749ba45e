"""``python -m agents.compare``."""

import sys

from agents.compare.settings import DESCRIPTION, ComparisonSettings
from dsfp_env.common import command_line

if __name__ == "__main__":
    command_line.answer_early(ComparisonSettings, DESCRIPTION)
    from agents.compare.runs import main  # imports torch, which takes seconds

    sys.exit(main())
