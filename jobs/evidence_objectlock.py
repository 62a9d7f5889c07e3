"""``python -m jobs.evidence_objectlock``: ``dosctl evidence objectlock`` under the name of the jobs."""

import sys

from pytest_decisionos.cli.main import main

if __name__ == "__main__":
    main(["evidence", "objectlock", *sys.argv[1:]])
