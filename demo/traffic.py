"""Two releases of a service that behave or misbehave as told, and users that account for each request.

Everything runs in one event loop in a thread of its own, so that whoever drives a cutover can be
plain code::

    with Site() as site:
        old = site.upstream("v1")
        new = site.upstream("v2")
        ...  # nginx listens on `port` and knows old.port and new.port
        load = site.load(port, users=50, rate=200)
        site.become(new, "errors")
        account = load.stop()
        assert account.sent == account.answered + account.lost
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from demo.service import Behaviour, Upstream
from demo.users import Account, Answer, Load

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from typing import Self

__all__ = [
    "Account",
    "Answer",
    "Behaviour",
    "Load",
    "RunningLoad",
    "Site",
    "Upstream",
    "free_ports",
]


class RunningLoad:
    """A load that runs in a site."""

    def __init__(self, site: Site, load: Load) -> None:
        self._site = site
        self._load = load
        self._ended = site.begin(load.run())

    def account(self) -> Account:
        """Everything until now."""
        return self._load.account()

    def stop(self) -> Account:
        """Send no more, await what is under way, and account for everything."""
        self._site.call(self._load.end)
        self._ended.result(60)
        return self._load.account()


class Site:
    """The event loop of upstreams and users, in a thread of its own."""

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._upstreams: list[Upstream] = []
        return self

    def __exit__(self, *_: object) -> None:
        for upstream in self._upstreams:
            self.begin(upstream.stop()).result(30)
        self.begin(self._rest()).result(30)
        self.call(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    async def _rest(self) -> None:
        """End what is still under way."""
        # Again and again: `wait_for` forgets a cancellation that comes when it is just done.
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=0.2)
        await asyncio.sleep(0)  # aborted transports close

    def begin(self, doing: Coroutine[Any, Any, Any]) -> Any:
        """Do it in the loop; a future."""
        return asyncio.run_coroutine_threadsafe(doing, self._loop)

    def call(self, function: Any) -> None:
        """Call it in the loop, soon."""
        self._loop.call_soon_threadsafe(function)

    def upstream(self, release: str, behaviour: Behaviour = "healthy", **more: Any) -> Upstream:
        """A release that runs."""
        made = Upstream(release, **more)
        self.begin(made.start()).result(30)
        self.become(made, behaviour)
        self._upstreams.append(made)
        return made

    def become(self, upstream: Upstream, behaviour: Behaviour) -> float:
        """Have it behave so; when it still did not, epoch seconds."""
        before = time.time()
        self.begin(upstream.become(behaviour)).result(30)
        return before

    def load(self, port: int, **more: Any) -> RunningLoad:
        """Users that begin at once."""
        return RunningLoad(self, Load(port, **more))


def free_ports(count: int) -> Sequence[int]:
    """Ports of loopback that nobody has now."""
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in taken]
