"""``python -m jobs.evidence_build``: ``dosctl evidence build`` under the name of the other jobs."""

import sys

from pytest_decisionos.cli.main import main

if __name__ == "__main__":
    main(["evidence", "build", *sys.argv[1:]])
