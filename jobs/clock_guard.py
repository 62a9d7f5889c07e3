"""Hold this host's clock against the SLA: ``python -m jobs.clock_guard --max-skew 500ms``."""

import sys

from pytest_decisionos.cli.main import main

if __name__ == "__main__":
    main(["clock", "check", *sys.argv[1:]])
