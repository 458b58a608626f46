"""`python -m t2ialign`: the same entry as the command, for `accelerate launch -m t2ialign`."""

import sys

from t2ialign.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
