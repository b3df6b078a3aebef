"""What every rendered pod and permission must look like, whatever the values."""

from __future__ import annotations

import pytest

from tests.chart.rendering import MATRIX, NAME, Object, container, named, of_kind, pod_specs, rendered


@pytest.fixture(scope="module", params=MATRIX)
def objects(request: pytest.FixtureRequest) -> list[Object]:
    return rendered(MATRIX[request.param])


def test_every_container_is_nobody_without_privileges(objects: list[Object]) -> None:
    for name, spec in pod_specs(objects).items():
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] > 0, name
        assert security["runAsGroup"] > 0, name
        assert security["fsGroup"] == security["runAsGroup"], name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for one in (*spec["containers"], *spec.get("initContainers", ())):
            own = one["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, name
            assert own["readOnlyRootFilesystem"] is True, name
            assert own["privileged"] is False, name
            assert own["runAsNonRoot"] is True, name
            assert own["capabilities"] == {"drop": ["ALL"]}, name
            assert own["seccompProfile"] == {"type": "RuntimeDefault"}, name


def test_no_pod_shares_anything_with_its_node(objects: list[Object]) -> None:
    for spec in pod_specs(objects).values():
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert not [volume for volume in spec["volumes"] if "hostPath" in volume]
        for one in spec["containers"]:
            assert not [port for port in one.get("ports", ()) if "hostPort" in port]


def test_every_container_says_what_it_needs(objects: list[Object]) -> None:
    for name, spec in pod_specs(objects).items():
        for one in (*spec["containers"], *spec.get("initContainers", ())):
            assert {"cpu", "memory"} <= set(one["resources"]["requests"]), name
            assert "memory" in one["resources"]["limits"], name


def test_no_service_link_becomes_a_setting(objects: list[Object]) -> None:
    """Kubernetes would add variables like SSH_API_PORT, and what is no setting must not have our prefix."""
    assert all(spec["enableServiceLinks"] is False for spec in pod_specs(objects).values())


def test_a_token_is_mounted_only_where_kubernetes_is_asked(objects: list[Object]) -> None:
    watches = bool([one for one in of_kind(objects, "RoleBinding") + of_kind(objects, "ClusterRoleBinding")
                    if one["subjects"][0]["name"] == f"{NAME}-bastion"])  # fmt: skip
    for name, spec in pod_specs(objects).items():
        wanted = {f"{NAME}-api": False, f"{NAME}-bastion": watches, f"{NAME}-secrets": True}[name]
        assert spec["automountServiceAccountToken"] is wanted, name
    for account in of_kind(objects, "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


def test_the_bastion_may_watch_pods_and_nothing_else_may_do_anything(objects: list[Object]) -> None:
    roles = of_kind(objects, "Role") + of_kind(objects, "ClusterRole")
    for role in roles:
        (rule,) = role["rules"]
        if role["metadata"]["name"] == f"{NAME}-secrets":
            assert rule == {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]}
        else:
            assert role["metadata"]["name"] == ("hub-" if role["kind"] == "ClusterRole" else "") + f"{NAME}-bastion"
            assert rule == {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}
    bindings = of_kind(objects, "RoleBinding") + of_kind(objects, "ClusterRoleBinding")
    for binding in bindings:
        (subject,) = binding["subjects"]
        assert binding["metadata"]["name"] == binding["roleRef"]["name"]
        wide = "hub-" if binding["kind"] == "ClusterRoleBinding" else ""
        assert binding["roleRef"]["name"] == wide + subject["name"]
        assert subject["name"] in {f"{NAME}-bastion", f"{NAME}-secrets"}


def test_no_secret_is_in_what_is_rendered(objects: list[Object]) -> None:
    assert not of_kind(objects, "Secret")
    for spec in pod_specs(objects).values():
        for one in spec["containers"]:
            given = {variable["name"] for variable in one.get("env", ()) if "value" in variable}
            assert not {"SSH_API_HUB_TOKEN", "SSH_API_DATABASE_URL"} & given


def test_mounted_secrets_are_for_the_pods_group_and_nobody_else(objects: list[Object]) -> None:
    for spec in pod_specs(objects).values():
        for volume in spec["volumes"]:
            for kind in ("secret", "projected"):
                if kind in volume:
                    assert volume[kind]["defaultMode"] == 0o440


def test_the_internal_port_is_in_no_ingress_and_only_in_its_own_service(objects: list[Object]) -> None:
    for ingress in of_kind(objects, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                assert path["backend"]["service"] == {"name": f"{NAME}-api", "port": {"name": "http"}}
    for service in of_kind(objects, "Service"):
        ports = [port["targetPort"] for port in service["spec"]["ports"]]
        assert ("internal" in ports) == service["metadata"]["name"].endswith("-internal")
        if "internal" in ports:
            assert service["spec"]["type"] == "ClusterIP"
            assert ports == ["internal"]


def test_every_part_is_watched_and_may_be_drained(objects: list[Object]) -> None:
    api, bastion = container(objects, "api"), container(objects, "bastion")
    assert api["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert api["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert bastion["livenessProbe"]["tcpSocket"] == bastion["readinessProbe"]["tcpSocket"] == {"port": "ssh"}
    for part in ("api", "bastion"):
        budget = named(objects, "PodDisruptionBudget", f"{NAME}-{part}")
        deployment = named(objects, "Deployment", f"{NAME}-{part}")
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert budget["spec"]["maxUnavailable"] == 1
        assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
        assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
        spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert {one["topologyKey"] for one in spread} == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
