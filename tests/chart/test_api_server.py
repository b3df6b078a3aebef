"""What a real API server says of the chart: every object, and what each service account may do."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from deploy.images import cluster_secrets
from tests.chart.apiserver import ApiServer, place
from tests.chart.rendering import (
    CHART,
    HIGHLY_AVAILABLE,
    MATRIX,
    MINIMAL,
    NAME,
    NAMESPACE,
    Object,
    helm,
    of_kind,
    pod_specs,
    rendered,
)

POD: Object = {
    "kind": "Pod",
    "metadata": {
        "name": "jupyter-alice",
        "namespace": NAMESPACE,
        "labels": {"component": "singleuser-server", "ssh-bastion-server/notebook": "true"},
    },
    "spec": {"containers": [{"name": "notebook", "image": "notebook"}]},
}


@pytest.fixture(scope="module")
def installed(server: ApiServer) -> list[Object]:
    """The site with everything, really created."""
    objects = rendered(HIGHLY_AVAILABLE)
    for one in objects:
        answer = server.create(one)
        assert answer.status == 201, (one["kind"], one["metadata"]["name"], answer)
    return objects


@pytest.fixture(scope="module")
def bastion(server: ApiServer, installed: list[Object]) -> str:
    return server.token_of(f"{NAME}-bastion", NAMESPACE)


@pytest.mark.parametrize("site", MATRIX)
def test_every_object_of_this_site_is_accepted(server: ApiServer, site: str) -> None:
    for one in rendered(MATRIX[site], {"fullnameOverride": "dry"}):
        answer = server.create(one, dry_run=True)
        assert answer.status == 201, (one["kind"], one["metadata"]["name"], answer)


def test_the_server_would_refuse_what_is_wrong(server: ApiServer) -> None:
    (policy, *_) = of_kind(rendered({"fullnameOverride": "dry"}), "NetworkPolicy")
    misspelt = {**policy, "spec": {**policy["spec"], "podselector": {}}}
    assert server.create(misspelt, dry_run=True).status == 400
    wrong = {**policy, "spec": {**policy["spec"], "ingress": [{"ports": [{"port": 70000}]}]}}
    assert server.create(wrong, dry_run=True).status == 422


def test_every_pod_meets_the_restricted_pod_security_standard(server: ApiServer) -> None:
    for name, spec in pod_specs(rendered(HIGHLY_AVAILABLE)).items():
        pod = {"kind": "Pod", "metadata": {"name": name, "namespace": "strict"}, "spec": spec}
        # The pod's priority, account and token are no matter of this standard.
        answer = server.create(pod, dry_run=True)
        assert answer.status == 201, (name, answer)
    loose = {**POD, "metadata": {"name": "loose", "namespace": "strict"}}
    assert server.create(loose, dry_run=True).status == 403


def test_the_bastion_may_get_list_and_watch_pods(server: ApiServer, bastion: str) -> None:
    assert server.create(POD).status == 201
    base = f"/api/v1/namespaces/{NAMESPACE}/pods"
    listed = server.ask("GET", f"{base}?labelSelector=ssh-bastion-server/notebook%3Dtrue", token=bastion)
    assert [one["metadata"]["name"] for one in listed.body["items"]] == ["jupyter-alice"]
    assert server.ask("GET", f"{base}/jupyter-alice", token=bastion).status == 200
    version = listed.body["metadata"]["resourceVersion"]
    assert server.ask("DELETE", f"{base}/jupyter-alice?gracePeriodSeconds=0").status == 200
    events = server.lines(f"{base}?watch=1&resourceVersion={version}&timeoutSeconds=1", bastion)
    assert [event["type"] for event in events][-1] == "DELETED"


DENIED = [
    ("POST", "/api/v1/namespaces/hub/pods"),
    ("DELETE", "/api/v1/namespaces/hub/pods/x"),
    ("PATCH", "/api/v1/namespaces/hub/pods/x"),
    ("PUT", "/api/v1/namespaces/hub/pods/x"),
    ("DELETE", "/api/v1/namespaces/hub/pods"),
    ("GET", "/api/v1/namespaces/hub/pods/x/log"),
    ("GET", "/api/v1/namespaces/hub/pods/x/exec?command=sh"),
    ("POST", "/api/v1/namespaces/hub/pods/x/exec?command=sh"),
    ("GET", "/api/v1/namespaces/hub/pods/x/portforward"),
    ("PUT", "/api/v1/namespaces/hub/pods/x/status"),
    ("POST", "/api/v1/namespaces/hub/pods/x/eviction"),
    ("PATCH", "/api/v1/namespaces/hub/pods/x/ephemeralcontainers"),
    ("GET", "/api/v1/pods"),
    ("GET", "/api/v1/namespaces/staff/pods"),
    ("GET", "/api/v1/namespaces/hub/secrets"),
    ("GET", "/api/v1/namespaces/hub/secrets/hub"),
    ("POST", "/api/v1/namespaces/hub/secrets"),
    ("GET", "/api/v1/namespaces/hub/configmaps"),
    ("GET", "/api/v1/namespaces/hub/services"),
    ("GET", "/api/v1/namespaces/hub/events"),
    ("GET", "/api/v1/namespaces"),
    ("GET", "/api/v1/nodes"),
    ("GET", "/apis/apps/v1/namespaces/hub/deployments"),
    ("GET", "/apis/rbac.authorization.k8s.io/v1/namespaces/hub/roles"),
    ("POST", "/api/v1/namespaces/hub/serviceaccounts/ssh-jupyterhub-bastion-bastion/token"),
]


@pytest.mark.parametrize(("method", "path"), DENIED)
def test_this_is_denied_to_the_bastion(server: ApiServer, bastion: str, method: str, path: str) -> None:
    kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
    assert server.ask(method, path, {} if method in ("POST", "PUT", "PATCH") else None, bastion, kind).status == 403


@pytest.mark.parametrize(("method", "path"), [*DENIED, ("GET", "/api/v1/namespaces/hub/pods")])
def test_everything_is_denied_to_the_api(server: ApiServer, installed: list[Object], method: str, path: str) -> None:
    kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
    token = server.token_of(f"{NAME}-api", NAMESPACE)
    assert server.ask(method, path, {} if method in ("POST", "PUT", "PATCH") else None, token, kind).status == 403


@pytest.mark.parametrize(
    ("account", "rules"),
    [
        ("bastion", {("pods", ("get", "list", "watch"))}),
        ("api", set()),
        ("secrets", {("secrets", ("create",))}),
    ],
)
def test_these_are_all_the_rules_of_this_account(
    server: ApiServer, installed: list[Object], account: str, rules: set[tuple[str, tuple[str, ...]]]
) -> None:
    """Every account may ask what it may do; nothing else may be in the answer."""
    token = server.token_of(f"{NAME}-{account}", NAMESPACE)
    for namespace, wanted in ((NAMESPACE, rules), ("staff", set())):
        review = {"kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace}}
        answer = server.ask("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", review, token)
        assert answer.status == 201, answer
        found = {
            (resource, tuple(sorted(rule["verbs"])))
            for rule in answer.body["status"]["resourceRules"]
            for resource in rule["resources"]
            if not resource.startswith("self")
        }
        assert found == wanted


def test_a_watch_from_before_a_compaction_is_told_that_it_is_gone(server: ApiServer, bastion: str) -> None:
    base = f"/api/v1/namespaces/{NAMESPACE}/pods"
    version = server.ask("GET", base, token=bastion).body["metadata"]["resourceVersion"]
    for number in range(3):
        pod = {**POD, "metadata": {**POD["metadata"], "name": f"jupyter-{number}"}}
        assert server.create(pod).status == 201
        assert server.ask("DELETE", f"{base}/jupyter-{number}?gracePeriodSeconds=0").status == 200
    server.compact()
    answer = server.ask("GET", f"{base}?watch=1&resourceVersion={version}&timeoutSeconds=1", token=bastion)
    assert 410 in (answer.status, answer.body.get("object", {}).get("code")), answer


@pytest.fixture
def account(server: ApiServer, installed: list[Object], tmp_path: Path) -> Path:
    """What Kubernetes mounts into the Job's pod."""
    (tmp_path / "token").write_text(server.token_of(f"{NAME}-secrets", NAMESPACE))
    (tmp_path / "ca.crt").write_bytes(server.ca.read_bytes())
    return tmp_path


def test_the_job_makes_its_secrets_once_and_keeps_what_is_there(
    server: ApiServer, installed: list[Object], account: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (job,) = of_kind(installed, "Job")
    arguments = ["make", *job["spec"]["template"]["spec"]["containers"][0]["args"]]
    environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.port)}

    def read() -> dict[str, Any]:
        listed = server.ask("GET", f"/api/v1/namespaces/{NAMESPACE}/secrets").body["items"]
        return {one["metadata"]["name"]: one["data"] for one in listed}

    assert cluster_secrets.main(arguments, environment, io.StringIO(), account) == 0
    assert capsys.readouterr().out.count(": made.") == 4
    made = read()
    assert set(made) == {f"{NAME}-{what}" for what in ("internal", "cookie", "host-key", "ca")}
    assert cluster_secrets.main(arguments, environment, io.StringIO(), account) == 0
    said = capsys.readouterr().out
    assert said.count("was there, and is kept") == 4
    assert read() == made
    assert not any(value in said for data in made.values() for value in data.values())


def test_the_jobs_account_can_neither_read_nor_change_a_secret(server: ApiServer, account: Path) -> None:
    token = (account / "token").read_text()
    secret = {"kind": "Secret", "metadata": {"name": "somebodys", "namespace": NAMESPACE}}
    assert server.create(secret).status == 201
    base = place(secret)
    assert server.ask("GET", base, token=token).status == 403
    assert server.ask("GET", f"{base}/somebodys", token=token).status == 403
    assert server.ask("PUT", f"{base}/somebodys", secret, token).status == 403
    assert server.ask("DELETE", f"{base}/somebodys", token=token).status == 403


def test_a_job_that_may_not_says_so_in_a_sentence(
    server: ApiServer, bastion: str, account: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (account / "token").write_text(bastion)
    environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.port)}
    arguments = ["make", f"--namespace={NAMESPACE}", "--internal=other"]
    assert cluster_secrets.main(arguments, environment, io.StringIO(), account) == 1
    assert capsys.readouterr().err == "Kubernetes does not let the Secret other be created: it answers 403.\n"


def test_a_rotated_secret_is_taken_back_by_the_server(
    server: ApiServer, installed: list[Object], capsys: pytest.CaptureFixture[str]
) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "rotating", "namespace": NAMESPACE},
        "stringData": {key: value.decode() for key, value in cluster_secrets.ca_data().items()},
    }
    path = f"{place(secret)}/rotating"
    assert server.create(secret).status == 201
    before = server.ask("GET", path).body
    assert cluster_secrets.main(["rotate", "user"], {}, io.StringIO(json.dumps(before))) == 0
    assert server.ask("PUT", path, json.loads(capsys.readouterr().out)).status == 200
    after = server.ask("GET", path).body["data"]
    assert after["user.current.pub"] == before["data"]["user.next.pub"]
    assert after["user.previous.pub"] == before["data"]["user.current.pub"]
    assert after["user.next.pub"] not in before["data"].values()
    assert {k: v for k, v in after.items() if not k.startswith("user.")} == {
        k: v for k, v in before["data"].items() if not k.startswith("user.")
    }


def test_helm_installs_upgrades_and_removes_it_and_its_notes_say_what_to_type(
    server: ApiServer, tmp_path: Path
) -> None:
    """Without the Job, which would wait for a node to run on."""
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(server.kubeconfig()))
    at = ("--kubeconfig", str(kubeconfig), "--namespace", "helm")
    done = helm("install", "ssh", str(CHART), *at, "--create-namespace", "--no-hooks", values=MINIMAL)
    assert done.returncode == 0, done.stderr
    for words in (
        "kubectl -n helm rollout status deployment/ssh-jupyterhub-bastion-api",
        "custom.ssh.apiUrl: http://ssh-jupyterhub-bastion-api-pods.helm.svc",
        "ssh -p 2222 YOU@ssh.example.org",
    ):
        assert words in done.stdout
    claims = "/api/v1/namespaces/helm/persistentvolumeclaims"
    before = server.ask("GET", claims).body["items"]
    open_site = {**MINIMAL, "networkPolicy": {"enabled": False}}
    done = helm("upgrade", "ssh", str(CHART), *at, "--no-hooks", values=open_site)
    assert done.returncode == 0, done.stderr
    assert "There are NO NetworkPolicies of ours" in done.stdout
    assert "deploy/hub/z2jh-values.yaml" in done.stdout
    done = helm("upgrade", "ssh", str(CHART), *at, "--no-hooks", values={"enabled": False})
    assert done.returncode == 0, done.stderr
    assert "switched off" in done.stdout
    assert server.ask("GET", "/apis/apps/v1/namespaces/helm/deployments").body["items"] == []
    assert [one["metadata"]["uid"] for one in server.ask("GET", claims).body["items"]] == [
        one["metadata"]["uid"] for one in before
    ]
