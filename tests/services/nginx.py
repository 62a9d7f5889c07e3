"""A real nginx before two releases, each test's own: on free ports, in its own folder."""

import contextlib
import os
from pathlib import Path

import pytest

from demo.nginx import Nginx, program
from demo.traffic import Site, free_ports
from pytest_decisionos.release.nginx_config import NginxConfig
from pytest_decisionos.release.rollout_nginx import NginxRollout
from pytest_decisionos.release.traffic import Traffic


def require_nginx():
    if program() is None:
        say = pytest.fail if os.environ.get("REQUIRE_SERVICES") == "1" else pytest.skip
        say("nginx not installed: make services")


class Front:
    """nginx, its adapter, and the releases v1 (which everybody runs) and v2 behind it."""

    def __init__(self, root: Path, site: Site, **more) -> None:
        self.root, self.site = root, site
        self.port, control = free_ports(2)
        self.v1, self.v2 = site.upstream("v1"), site.upstream("v2")
        settings = {
            "listen": [f"127.0.0.1:{self.port}"],
            "control": f"127.0.0.1:{control}",
            "releases": {
                "v1": [f"127.0.0.1:{self.v1.port}"],
                "v2": [f"127.0.0.1:{self.v2.port}"],
            },
            "sticky": "cookie:user",
            **({"user": "root"} if os.geteuid() == 0 else {}),
            **more,
        }
        self.settings = settings
        self.rollout = self.adapter()
        self.nginx = Nginx(self.rollout.conf, lambda: self.rollout.running() is not None)

    def adapter(self, strategy="canary", **more):
        config = NginxConfig.model_validate({**self.settings, **more})
        return NginxRollout(config, strategy=strategy, root=self.root, beside=self.root)

    def at(self, pct, **more):
        """v2 at a percentage beside v1; 0 is shadow."""
        return Traffic(pct=pct, shadow=pct == 0, release="v2", baseline_release="v1", **more)

    def step(self, pct, **more):
        self.rollout.apply(self.at(pct, **more))

    @property
    def log(self):
        return self.root / "log/reqlog.jsonl"


@pytest.fixture
def front_of(tmp_path):
    """A function that makes a front with settings of its own, and has it run with all users on v1."""
    require_nginx()
    with contextlib.ExitStack() as stack:

        def make(root=tmp_path / "var", **more):
            site = stack.enter_context(Site())
            front = Front(root, site, **more)
            front.rollout.prepare(Traffic(release="v1"))
            stack.enter_context(front.nginx)
            return front

        yield make


@pytest.fixture
def front(front_of):
    return front_of()
