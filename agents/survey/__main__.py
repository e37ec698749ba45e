"""``python -m agents.survey``."""

import sys

from agents.survey.settings import DESCRIPTION, LearnersSurveySettings
from dsfp_env.common import command_line

if __name__ == "__main__":
    command_line.answer_early(LearnersSurveySettings, DESCRIPTION)
    from agents.survey.runs import main  # imports torch, which takes seconds

    sys.exit(main())
