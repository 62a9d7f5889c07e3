"""Write tests/data/bundles again: good bundles, and one folder for each fault.

Run it from the checkout when the format of bundles changes, and read the diff:

    python scripts/sample_bundles.py
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
sys.path.insert(0, str(CHECKOUT / "tests" / "judge"))

import bundle_cases as cases  # noqa: E402 - the tests' own cases, found by the line above

DATA = CHECKOUT / "tests" / "data" / "bundles"


def write(name: str, made: cases.Bundle, expected: str) -> None:
    """One folder: the bundle, the trust file, how it is presented, and what is to be said."""
    folder = DATA / name
    for path, data in made.files.items():
        file = folder / "bundle" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    (folder / "trust.json").write_text(json.dumps(made.trust, indent=1) + "\n")
    (folder / "args.json").write_text(json.dumps(made.args) + "\n")
    (folder / "expected.txt").write_text(expected + "\n")


def main() -> None:
    """Make every folder anew."""
    shutil.rmtree(DATA, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        good = cases.make(Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        lost = cases.make(Path(folder), numbers={"witness": 5000.0, "peer": 5000.0})
    write("good", cases.Bundle(good), "verified")
    write("fail_quorum_not_reached", cases.lost_quorum(lost), "bundle.quorum:not_reached")
    with tempfile.TemporaryDirectory() as folder:
        remote = cases.make(Path(folder), remote=("peer",))
    with tempfile.TemporaryDirectory() as folder:
        silent = cases.make(Path(folder), dead=("peer",))
    write("good_remote", cases.Bundle(remote, min_remote=1), "verified")
    write("good_silent", cases.Bundle(silent), "verified")
    for base, faults in (
        (good, cases.CASES),
        (remote, cases.REMOTE_CASES),
        (silent, cases.SILENT_CASES),
    ):
        for spoil, expected in faults.items():
            made = cases.Bundle(base)
            spoil(made)
            write(f"fail_{spoil.__name__}", made, expected)


if __name__ == "__main__":
    main()
