"""Harvest the reqlog into a block file.

``python -m jobs.evidence_harvest_reqlog --csv var/log/reqlog.csv --out var/evidence/perf.json``
"""

import sys

from pytest_decisionos.cli.main import main

if __name__ == "__main__":
    main(["evidence", "harvest", "--role", "reqlog", *sys.argv[1:]])
