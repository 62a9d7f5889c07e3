"""Index all documents, or with ``--verify`` check them: ``dosctl evidence index``."""

import sys

from pytest_decisionos.cli.main import main

if __name__ == "__main__":
    main(["evidence", "index", *sys.argv[1:]])
