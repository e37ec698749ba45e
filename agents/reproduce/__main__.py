"""``python -m agents.reproduce``."""

import sys

from agents.reproduce.settings import DESCRIPTION, StudySettings
from dsfp_env.common import command_line

if __name__ == "__main__":
    command_line.answer_early(StudySettings, DESCRIPTION)
    from agents.reproduce.study import main  # imports torch, which takes seconds

    sys.exit(main())
