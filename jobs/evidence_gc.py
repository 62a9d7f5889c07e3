"""Delete what nobody needs any longer, with ``--apply``: ``dosctl evidence gc``."""

import sys

from pytest_decisionos.cli.main import main

if __name__ == "__main__":
    main(["evidence", "gc", *sys.argv[1:]])
