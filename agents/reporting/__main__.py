"""``python -m agents.reporting``."""

import sys

from agents.reporting.remaking import main

if __name__ == "__main__":
    sys.exit(main())
