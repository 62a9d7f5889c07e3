"""A root folder with LOCKED documents, a bundle and an index, and a bucket to archive it in."""

import contextlib
import json
import os
import secrets
import socket
import threading
from datetime import UTC, datetime

import boto3
from botocore.config import Config

from pytest_decisionos.evidence import index_open, s3
from pytest_decisionos.evidence.config import ObjectLock, Retention
from pytest_decisionos.evidence.index import update
from pytest_decisionos.evidence.objectlock_precheck import precheck
from pytest_decisionos.evidence.objectlock_upload import upload
from pytest_decisionos.evidence.objectlock_verify import verify
from pytest_decisionos.model.target import Target
from pytest_decisionos.testing import healthy, sealed

TARGET = Target(service="checkout", environment="production", region="eu-1", tenant="all")
PREFIX = "evidence/checkout/production/eu-1/all/"


def now():
    return datetime.now(UTC)


class Root:
    """What a release leaves behind."""

    def __init__(self, path):
        self.path = path
        (path / "evidence").mkdir(parents=True)

    def locked(self, name, size=0):
        """A LOCKED document, in the index."""
        blocks = healthy(now())
        blocks["meta"]["release"] = name
        blocks["meta"]["target"] = TARGET.model_dump()
        text = json.dumps(sealed(blocks), ensure_ascii=False)
        return self.file(f"evidence/{name}.locked.json", text.encode().ljust(size))

    def bundle(self, name, **files):
        for file, data in files.items():
            self.file(f"gate/bundle/{name}/{file.replace('__', '/')}", data)

    def file(self, name, data):
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def index(self):
        report = update(self.path, now=now(), retention=Retention(), target=TARGET)
        assert not report.faults

    def record(self, events):
        index_open.record(self.path, events, now=now())


class Bucket:
    """A bucket of its own on a gateway, what the owner sees in it, and our commands on it."""

    def __init__(self, gateway, clients, *, lock=True, **config):
        self.gateway, self.clients, self.name = gateway, clients, f"test-{secrets.token_hex(6)}"
        self.config = ObjectLock(
            bucket=self.name, prefix="evidence", endpoint_url=gateway.url, **{"days": 2, **config}
        )
        self.owner = clients.owner(gateway)
        self.owner.create_bucket(Bucket=self.name, ObjectLockEnabledForBucket=lock)

    @property
    def ours(self):
        """The client that our commands use, with the credentials of this moment."""
        return self.clients.ours(self.config)

    def changed(self, **config):
        self.config = self.config.model_copy(update=config)

    def upload(self, root, **options):
        options = {"record": root.record, "now": now(), **options}
        return upload(root.path, self.config, TARGET, client=self.ours, **options)

    def verify(self, root, **options):
        options = {"now": now(), **options}
        return verify(root.path, self.config, TARGET, client=self.ours, **options)

    def precheck(self):
        rows = precheck(self.config, TARGET, client=self.ours)
        return {row.name: row.result for row in rows}, {row.name: row.message for row in rows}

    def put(self, key, data=b"{}", **more):
        return self.owner.put_object(Bucket=self.name, Key=key, Body=data, **more)["VersionId"]

    def versions(self, prefix=""):
        """(key, VersionId) of every version, the newest of a key first."""
        page = self.owner.list_object_versions(Bucket=self.name, Prefix=prefix)
        return [(v["Key"], v["VersionId"]) for v in page.get("Versions", [])]

    def uploads(self):
        """Keys of uploads in parts that are not completed."""
        page = self.owner.list_multipart_uploads(Bucket=self.name)
        return [upload["Key"] for upload in page.get("Uploads", [])]

    def lock_of(self, key, version_id):
        return s3.read_lock(self.owner, self.name, key, version_id)

    def deny(self, *actions):
        """The guest may do everything in the bucket but ``actions``."""
        guest = {"AWS": ["arn:aws:iam:::user/guest"]}
        place = [f"arn:aws:s3:::{self.name}", f"arn:aws:s3:::{self.name}/*"]
        said = [("Allow", ["s3:*"])] + ([("Deny", list(actions))] if actions else [])
        policy = {
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": effect, "Principal": guest, "Action": names, "Resource": place}
                for effect, names in said
            ],
        }
        self.owner.put_bucket_policy(Bucket=self.name, Policy=json.dumps(policy))


class Clients:
    """Clients of S3, one for all tests that need the same: to make one takes a fifth of a second."""

    def __init__(self):
        self._kept, self._open = {}, contextlib.ExitStack()

    def owner(self, gateway):
        if gateway not in self._kept:
            client = boto3.client(
                "s3",
                endpoint_url=gateway.url,
                aws_access_key_id=gateway.owner.access_key,
                aws_secret_access_key=gateway.owner.secret_key,
                region_name="us-east-1",
                config=Config(s3={"addressing_style": "path"}),
            )
            self._kept[gateway] = self._open.enter_context(contextlib.closing(client))
        return self._kept[gateway]

    def ours(self, config):
        who = [os.environ.get(f"AWS_{name}") for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")]
        key = (config.endpoint_url, config.workers, *who)
        if key not in self._kept:
            opened = s3.open_s3(config, region=None)
            self._kept[key] = self._open.enter_context(opened)
        return self._kept[key]

    def close(self):
        self._open.close()


def causes(report):
    """(severity, cause) → paths, of a report of verify."""
    found = {}
    for finding in report.findings:
        found.setdefault((finding.severity, finding.cause), []).append(finding.path)
    return found


class Wire:
    """A TCP proxy before a gateway, which cuts all connections after so many bytes to the server."""

    def __init__(self, gateway, limit=None):
        self.gateway, self.limit, self.sent = gateway, limit, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.sockets, self.threads, self.lock = [], [], threading.Lock()
        self._start(self._accept)

    def _start(self, work, *arguments):
        thread = threading.Thread(target=work, args=arguments)
        thread.start()
        self.threads.append(thread)

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(("127.0.0.1", self.gateway.port))
                self.sockets += [near, far]
                self._start(self._pump, near, far, True)
                self._start(self._pump, far, near, False)

    def _pump(self, source, sink, counts):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if counts:
                    with self.lock:
                        self.sent += len(data)
                        if self.limit is not None and self.sent > self.limit:
                            break
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for one in self.sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join()
        for one in self.sockets:
            one.close()
