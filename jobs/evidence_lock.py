"""``python -m jobs.evidence_lock``: ``dosctl evidence lock`` under the name of the other jobs."""

import sys

from pytest_decisionos.cli.main import main

if __name__ == "__main__":
    main(["evidence", "lock", *sys.argv[1:]])
