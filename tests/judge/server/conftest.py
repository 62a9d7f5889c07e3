"""A judge in this process, whose clock is right and whose replay store remembers already."""

import time

import pytest
from judge_host import workspace

from pytest_decisionos.judge.server import service as service_module
from pytest_decisionos.judge.server.app import make_app
from pytest_decisionos.judge.server.readiness import Probe
from pytest_decisionos.trust.replay_sqlite import SqliteStore


@pytest.fixture(scope="module")
def patched():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def opened(patched, tmp_path_factory):
    """A function that opens services, which are closed at the end."""
    made = []

    def store(options):
        path = options.root / "judge" / "replay.sqlite"
        born = [time.time() - 1000]

        def clock():
            return born.pop() if born else time.time()

        return SqliteStore(path, life_sec=303, skew_sec=1, clock=clock)

    patched.setattr(service_module, "replay_store", store)
    patched.setattr(service_module, "clock_fault", lambda ntp, skew: None)

    patched.setattr(service_module, "Probe", lambda looks, **_: Probe(looks, every_sec=0.05))

    def open_one(own=None, **options):
        host = own or workspace(tmp_path_factory.mktemp("host"))
        service = service_module.Service(host.options(**options))
        made.append(service)
        service.host, service.app = host, make_app(service)
        return service

    yield open_one
    for service in made:
        service.close()


@pytest.fixture(scope="module")
def judge(opened):
    return opened()
