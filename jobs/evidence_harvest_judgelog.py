r"""Harvest the judgelog into a block file.

``python -m jobs.evidence_harvest_judgelog --csv var/log/judgelog.csv \
  --out var/evidence/perf_judge.json``
"""

import sys

from pytest_decisionos.cli.main import main

if __name__ == "__main__":
    main(["evidence", "harvest", "--role", "judgelog", *sys.argv[1:]])
