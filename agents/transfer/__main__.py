"""``python -m agents.transfer``."""

import sys

from agents.transfer.settings import DESCRIPTION, TransferSettings
from dsfp_env.common import command_line

if __name__ == "__main__":
    command_line.answer_early(TransferSettings, DESCRIPTION)
    from agents.transfer.runs import main  # imports torch, which takes seconds

    sys.exit(main())
