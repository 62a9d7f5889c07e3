"""SNTP servers that do what a test says, on loopback."""

import contextlib
import socket
import struct
import threading
import time

HEADER = struct.Struct("!BBbbII4sQ8sQQ")


def stamp(seconds):
    """An NTP timestamp of seconds since 1970."""
    return int((seconds + 2_208_988_800) * 2**32) % 2**64


def reply(
    request, *, ahead=0.0, leap=0, version=4, mode=4, stratum=1, precision=-20, delay=0.0,
    dispersion=0.0, reference_id=b"GPS\0", origin=None, **times,
):  # fmt: skip
    """The answer of a server that is ``ahead`` of this host, or an answer that is wrong somewhere.

    ``reference``, ``received`` and ``transmitted`` are NTP timestamps.
    """
    now = stamp(time.time() + ahead)
    said = {
        "reference": stamp(time.time() + ahead - 8),
        "received": now,
        "transmitted": now,
        **times,
    }
    return HEADER.pack(
        leap << 6 | version << 3 | mode, stratum, 6, precision, int(delay * 2**16),
        int(dispersion * 2**16), reference_id, said["reference"],
        request[40:48] if origin is None else origin, said["received"], said["transmitted"],
    )  # fmt: skip


class Server:
    """A server whose answers to a request are the packets that ``answers(request)`` gives."""

    def __init__(self, answers=lambda request: [reply(request)], *, other_address=False):
        self._answers, self._other_address = answers, other_address
        self._link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._link.bind(("127.0.0.1", 0))
        self.port = self._link.getsockname()[1]
        self.name = f"127.0.0.1:{self.port}"
        self.requests = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._link.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._link.close()

    def _run(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            while True:
                request, address = self._link.recvfrom(2048)
                if not request:
                    return
                self.requests.append(request)
                sends = other if self._other_address else self._link
                for packet in self._answers(request):
                    with contextlib.suppress(OSError):  # who asked may be gone
                        sends.sendto(packet, address)


@contextlib.contextmanager
def servers(*kinds):
    """Servers that run meanwhile; each as a ``Server``, or as ``reply``'s arguments."""
    with contextlib.ExitStack() as running:
        yield [
            running.enter_context(
                kind
                if isinstance(kind, Server)
                else Server(lambda request, kind=kind: [reply(request, **kind)])
            )
            for kind in kinds
        ]
