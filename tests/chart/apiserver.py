"""Why: only a real API server says whether an object is valid and what a service account may do."""

from __future__ import annotations

import json
import shutil
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.chart.rendering import Object, find
from tests.support.hub import free_port
from tests.support.processes import die_with_parent

TOOLS = ("etcd", "kube-apiserver")
ADMIN = "administrator"
_START_SECONDS = 120.0

PLACES = {
    "ServiceAccount": ("/api/v1", "serviceaccounts"),
    "Service": ("/api/v1", "services"),
    "Secret": ("/api/v1", "secrets"),
    "Pod": ("/api/v1", "pods"),
    "PersistentVolumeClaim": ("/api/v1", "persistentvolumeclaims"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "Job": ("/apis/batch/v1", "jobs"),
    "Role": ("/apis/rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    "ClusterRole": ("/apis/rbac.authorization.k8s.io/v1", "clusterroles"),
    "ClusterRoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "clusterrolebindings"),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
    "Ingress": ("/apis/networking.k8s.io/v1", "ingresses"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
}
"""Where the API has the kinds that are used here."""


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any


@dataclass
class ApiServer:
    """A running API server on loopback, and a token that may do everything. `kill` and `start` lose nothing but
    connections: what there is is in etcd."""

    port: int
    etcd_port: int
    folder: Path
    token: str
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        program = find("kube-apiserver")
        assert program
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    program,
                    f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
                    "--bind-address=127.0.0.1",
                    "--advertise-address=127.0.0.1",
                    f"--secure-port={self.port}",
                    f"--cert-dir={self.folder / 'certificates'}",
                    f"--token-auth-file={self.folder / 'tokens.csv'}",
                    "--authorization-mode=RBAC",
                    "--disable-admission-plugins=ServiceAccount",
                    f"--service-account-key-file={self.accounts}",
                    f"--service-account-signing-key-file={self.accounts}",
                    "--service-account-issuer=https://kubernetes.default.svc",
                    "--service-cluster-ip-range=10.96.0.0/16",
                    "--endpoint-reconciler-type=none",
                    "--etcd-compaction-interval=0",
                    "--watch-cache=false",  # it would remember what etcd has forgotten
                    "--allow-privileged=false",
                    "--profiling=false",
                ],
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509
            )
        _await(self, self.process)

    def kill(self) -> None:
        """From one moment to the next it is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    @property
    def accounts(self) -> Path:
        """What signs the tokens of service accounts."""
        return self.folder / "accounts.pem"

    @property
    def ca(self) -> Path:
        return self.folder / "certificates" / "apiserver.crt"

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        token: str | None = None,
        kind: str = "application/json",
        timeout: float = 20,
    ) -> Answer:
        """One request; its answer, whatever its status."""
        request = urllib.request.Request(
            f"https://127.0.0.1:{self.port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {token or self.token}", "Content-Type": kind},
        )
        try:
            with self._opener().open(request, timeout=timeout) as response:
                return Answer(response.status, _json(response.read()))
        except urllib.error.HTTPError as error:
            return Answer(error.code, _json(error.read()))

    def lines(self, path: str, token: str) -> list[Any]:
        """A watch: every event until the server ends it."""
        return list(self.stream(path, token))

    def stream(self, path: str, token: str) -> Iterator[Any]:
        """The same, one by one as they come."""
        request = urllib.request.Request(
            f"https://127.0.0.1:{self.port}{path}", headers={"Authorization": f"Bearer {token}"}
        )
        with self._opener().open(request, timeout=30) as response:
            for line in response:
                yield json.loads(line)

    def create(self, one: Object, *, dry_run: bool = False) -> Answer:
        """Create an object; a field that the API does not know is an error."""
        query = "?fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")
        return self.ask("POST", place(one) + query, one)

    def token_of(self, account: str, namespace: str) -> str:
        """A token as Kubernetes gives it to the account's pods."""
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        answer = self.ask("POST", path, request)
        assert answer.status == 201, answer
        token: str = answer.body["status"]["token"]
        return token

    def kubeconfig(self) -> Object:
        """For programs that read one: the administrator's."""
        cluster = {"server": f"https://127.0.0.1:{self.port}", "certificate-authority": str(self.ca)}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": ADMIN, "user": {"token": self.token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": ADMIN}}],
            "current-context": "test",
        }

    def compact(self) -> None:
        """Forget all history, as etcd does every few minutes."""
        key = "L3JlZ2lzdHJ5"  # /registry
        revision = int(self._etcd("kv/range", {"key": key, "count_only": True})["header"]["revision"])
        self._etcd("kv/compaction", {"revision": str(revision), "physical": True})

    def _etcd(self, what: str, body: Mapping[str, Any]) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.etcd_port}/v3/{what}", data=json.dumps(body).encode())
        with self._opener().open(request, timeout=20) as response:
            return json.loads(response.read())

    def _opener(self) -> urllib.request.OpenerDirector:
        context = ssl.create_default_context(cafile=str(self.ca)) if self.ca.exists() else ssl.create_default_context()
        return urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )


def place(one: Object) -> str:
    """The path that objects of this kind are created at."""
    base, plural = PLACES[one["kind"]]
    namespace = one["metadata"].get("namespace")
    return f"{base}/namespaces/{namespace}/{plural}" if namespace else f"{base}/{plural}"


@contextmanager
def running(folder: Path) -> Iterator[ApiServer]:
    """etcd and kube-apiserver with RBAC, empty, on free ports of loopback."""
    store = find("etcd")
    assert store
    client, peer = free_port(), free_port()
    server = ApiServer(free_port(), client, folder, token="a-token-of-the-tests-alone")
    (folder / "tokens.csv").write_text(f"{server.token},{ADMIN},1,system:masters\n")
    key = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    server.accounts.write_bytes(key)
    urls = {"client": f"http://127.0.0.1:{client}", "peer": f"http://127.0.0.1:{peer}"}
    with server.log.open("ab") as log:
        etcd = subprocess.Popen(
            [
                store,
                f"--data-dir={folder / 'etcd'}",
                f"--listen-client-urls={urls['client']}",
                f"--advertise-client-urls={urls['client']}",
                f"--listen-peer-urls={urls['peer']}",
                f"--initial-advertise-peer-urls={urls['peer']}",
                f"--initial-cluster=default={urls['peer']}",
                "--unsafe-no-fsync",
            ],
            stdout=log,
            stderr=log,
            preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509
        )
    try:
        server.start()
        yield server
    finally:
        for process in (server.process, etcd):
            _end(process)
        shutil.rmtree(folder / "etcd", ignore_errors=True)


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is None:
        return
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _await(server: ApiServer, process: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + _START_SECONDS
    while time.monotonic() < limit:
        assert process.poll() is None, server.log.read_text()[-2000:]
        try:
            if server.ca.exists() and server.ask("GET", "/readyz?verbose").status == 200:
                return
        except (OSError, ValueError):
            pass
        time.sleep(0.1)
    raise TimeoutError(server.log.read_text()[-2000:])


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.decode("utf-8", "replace")
