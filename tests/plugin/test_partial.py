"""Whatever makes a run less than whole, and whoever tries to bend it: never GO."""

from datetime import UTC, datetime

import pytest

from pytest_decisionos.testing import healthy

pytestmark = pytest.mark.untraced
MODES = [(), ("-n", "2")]
_GO: dict[str, bytes] = {}


def after_a_go(project):
    """An earlier decision, to take away: of a real run, which is made once."""
    folder = project.path / "var/gate"
    if not _GO:
        result = project.pytest("gates/")
        assert result.returncode == 0, result.stdout + result.stderr
        _GO.update((path.name, path.read_bytes()) for path in folder.iterdir() if path.is_file())
    folder.mkdir(exist_ok=True)
    for name, data in _GO.items():
        (folder / name).write_bytes(data)
    assert project.decision["verdict"] == "GO"


def go(project, *args, **env):
    after_a_go(project)
    return project.pytest(*(args or ("gates/",)), **env)


PARTIAL = {
    "k": ["gates/", "-k", "p95"],
    "k-none": ["gates/", "-k", "nothing_of_that_name"],
    "m": ["gates/", "-m", "not slow_marker"],
    "m-none": ["gates/", "-m", "slow_marker"],
    "deselect": ["gates/", "--deselect", "gates/test_evidence.py"],
    "ignore": ["gates/", "--ignore", "gates/test_evidence.py"],
    "ignore own": ["gates/", "--ignore", "gates/test_own.py"],
    "own file left out": ["gates/test_slo.py", "gates/test_evidence.py"],
    "one file": ["gates/test_slo.py"],
    "one test": ["gates/test_slo.py::test_rule[slo-own::latency.p95@evidence]"],
    "collect-only": ["gates/", "--collect-only"],
    "maxfail": ["gates/", "-x"],
    "setup-only": ["gates/", "--setup-only"],
    "setup-plan": ["gates/", "--setup-plan"],
}


@pytest.mark.parametrize(
    "args", [v for k, v in PARTIAL.items() if k != "m"], ids=[k for k in PARTIAL if k != "m"]
)
@pytest.mark.parametrize("how", MODES, ids=["plain", "xdist"])
def test_a_part_is_never_go(project, args, how):
    project.write("pytest.ini", "[pytest]\nmarkers = slow_marker: x\n")
    if "own" in str(args) or "gates/test_evidence.py" in args[1:]:
        project.write("gates/test_own.py", "def test_own():\n    pass\n")
    if "-x" in args:
        project.write("gates/test_a.py", "def test_first():\n    assert False\n")
        project.pytest("gates/")
        result = project.pytest(*args, *how)
        assert result.returncode != 0
        assert project.decision is None or project.decision["verdict"] == "NO-GO"
        return
    if how and {"--setup-only", "--setup-plan", "--collect-only"} & set(args):
        how = ()
    result = go(project, *args, *how)
    assert result.returncode not in (0, 10), result.stdout
    assert project.decision is None
    assert "GO, action proceed" not in result.stdout


def test_a_marker_that_selects_everything_is_whole(project):
    project.write("pytest.ini", "[pytest]\nmarkers = slow_marker: x\n")
    assert go(project, *PARTIAL["m"]).returncode == 0


HOSTILE = {
    "exit status": "def pytest_sessionfinish(session):\n    session.exitstatus = 0\n",
    "exit in sessionfinish": "import pytest\ndef pytest_sessionfinish(session):\n    pytest.exit('bye', 0)\n",
    "exit in loop": "import pytest\ndef pytest_runtest_setup(item):\n    pytest.exit('bye', 0)\n",
    "exit in collection": "import pytest\ndef pytest_collection(session):\n    pytest.exit('bye', 0)\n",
    "exit at import": "import pytest\npytest.exit('bye', 0)\n",
    "exit in configure": "import pytest\ndef pytest_configure(config):\n    pytest.exit('bye', 0)\n",
    "xfail everything": "import pytest\ndef pytest_collection_modifyitems(items):\n    for i in items:\n        i.add_marker(pytest.mark.xfail)\n",
    "skip everything": "import pytest\ndef pytest_collection_modifyitems(items):\n    for i in items:\n        i.add_marker(pytest.mark.skip)\n",
    "drop items": "def pytest_collection_modifyitems(items):\n    items[:] = items[:1]\n",
    "drop items late": "import pytest\n@pytest.hookimpl(trylast=True)\ndef pytest_collection_modifyitems(items):\n    del items[1:]\n",
    "drop items outermost": "import pytest\n@pytest.hookimpl(wrapper=True, tryfirst=True)\ndef pytest_collection_modifyitems(items):\n    yield\n    del items[1:]\n",
    "drop all": "def pytest_collection_modifyitems(items):\n    items.clear()\n",
    "drop at the source": "def pytest_pycollect_makeitem(collector, name, obj):\n    if name.startswith('test'):\n        return []\n",
    "no file collected": "def pytest_ignore_collect(collection_path):\n    return collection_path.name.startswith('test_')\n",
    "run nothing": "def pytest_runtestloop(session):\n    return True\n",
    "run nothing first": "import pytest\n@pytest.hookimpl(tryfirst=True)\ndef pytest_runtest_protocol(item):\n    return True\n",
    "reports pass": "import pytest\n@pytest.hookimpl(wrapper=True, tryfirst=True)\ndef pytest_runtest_makereport(item, call):\n    r = yield\n    r.outcome = 'passed'\n    r.longrepr = None\n    return r\n",
    "skip the file": "collect_ignore = ['test_evidence.py']\n",
    "calls pass": "def pytest_pyfunc_call(pyfuncitem):\n    return True\n",
    "own fixture": "import pytest\n@pytest.fixture\ndef judge():\n    class J:\n        def vote(self, rule): pass\n    return J()\n",
    "own check": "import pytest\n@pytest.fixture\ndef check():\n    class C:\n        def pass_or_fail(self): pass\n    return C()\n",
    "inert options": "def pytest_configure(config):\n    config.option.collectonly = True\n",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("how", MODES, ids=["plain", "xdist"])
def test_a_hostile_conftest_never_makes_a_go_of_a_bad_release(project, name, how):
    blocks = healthy(datetime.now(UTC))
    blocks["perf"]["latency_ms"]["p95"] = 5000.0
    project.evidence(blocks)
    project.write("gates/conftest.py", HOSTILE[name])
    result = project.pytest("gates/", *how)
    assert result.returncode not in (0, 10), result.stdout
    assert project.decision is None or project.decision["verdict"] == "NO-GO"
    assert "action proceed" not in result.stdout


HARMLESS = {"exit status", "reports pass", "calls pass", "exit in sessionfinish"}
"""They say of a good run what is true anyway."""


@pytest.mark.parametrize(
    ("name", "how"),
    [
        (name, how)
        for name in HOSTILE
        for how in MODES
        # xdist's own loop comes before a conftest's: everything is run, and GO is right.
        if name not in HARMLESS and (name, bool(how)) != ("run nothing", True)
    ],
)
def test_a_hostile_conftest_takes_even_a_good_go_away(project, name, how):
    after_a_go(project)
    project.write("gates/conftest.py", HOSTILE[name])
    result = project.pytest("gates/", *how)
    assert result.returncode not in (0, 10), (name, result.stdout)
    assert project.decision is None or project.decision["verdict"] == "NO-GO", name


def test_a_crashed_worker_is_never_go(project):
    after_a_go(project)
    project.write(
        "gates/conftest.py",
        "import os\ndef pytest_runtest_call(item):\n    if 'p99' in item.nodeid: os._exit(1)\n",
    )
    result = project.pytest("gates/", "-n", "2")
    assert result.returncode not in (0, 10)
    assert project.decision is None or project.decision["verdict"] == "NO-GO"


def test_a_collection_error_is_never_go(project):
    after_a_go(project)
    project.write("gates/test_broken.py", "import nothing_of_that_name\n")
    for args in ([], ["--continue-on-collection-errors"], ["-n", "2"]):
        result = project.pytest("gates/", *args)
        assert result.returncode not in (0, 10)
        assert project.decision is None or project.decision["verdict"] == "NO-GO"


def test_no_gates_at_all_is_never_go(project):
    for path in (project.path / "gates").glob("*.py"):
        path.unlink()
    result = project.pytest("gates/")
    assert result.returncode not in (0, 10)
    assert project.decision is None


def test_a_gate_file_that_skips_itself_is_missing(project):
    project.write(
        "gates/sub/test_own.py", "import pytest\npytest.skip('not here', allow_module_level=True)\n"
    )
    result = project.pytest("gates/")
    assert result.returncode == 1, result.stdout
    assert "gate files gave no test: gates/sub/test_own.py" in result.stdout
    assert project.decision is None
