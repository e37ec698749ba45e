"""``python -m agents.reproduce``."""

import sys

from agents.reproduce.study import main

if __name__ == "__main__":
    sys.exit(main())
