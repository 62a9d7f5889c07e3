"""Step, promote, wait or abort, as evidence and stage say: ``python -m jobs.canary_auto_promote``.

From cron each minute; exit status 0 stepped or promoted, 2 aborted, 3 denied, 10 wait.
"""

import sys

from pytest_decisionos.cli.main import main

if __name__ == "__main__":
    main(["release", "auto", *sys.argv[1:]])
