"""``python -m agents.compare``."""

import sys

from agents.compare.runs import main

if __name__ == "__main__":
    sys.exit(main())
