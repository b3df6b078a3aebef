"""What values do, and what is said of values that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from api.settings import Settings as ApiSettings
from api.settings import read_settings as read_api_settings
from bastion.settings import Settings as BastionSettings
from bastion.settings import read_settings as read_bastion_settings
from ca.environment import setting_names
from tests.chart.rendering import (
    CHART,
    EXISTING,
    HIGHLY_AVAILABLE,
    MATRIX,
    MINIMAL,
    NAME,
    PRIMEHUB,
    container,
    environment,
    helm,
    merged,
    named,
    of_kind,
    pod_specs,
    rendered,
    template,
)


@pytest.mark.parametrize("site", MATRIX)
def test_helm_lints_and_renders_this_site(site: str) -> None:
    done = helm("lint", "--strict", str(CHART), values=merged(MINIMAL, MATRIX[site]))
    assert done.returncode == 0, done.stdout
    assert rendered(MATRIX[site])


@pytest.mark.parametrize("site", MATRIX)
def test_both_processes_take_the_settings_that_are_rendered(site: str, tmp_path: Any) -> None:
    objects = rendered(MATRIX[site])
    (tmp_path / "token").write_text("x" * 64)
    api = {**environment(objects, "api"), "SSH_API_HUB_TOKEN_FILE": str(tmp_path / "token")}
    if "SSH_API_DATABASE_URL" in api:
        api["SSH_API_DATABASE_URL"] = "postgresql+asyncpg://user:password@host/name"
    settings = read_api_settings(api)
    bastion = read_bastion_settings(environment(objects, "bastion"))
    assert settings.bastion.port == 2222
    assert settings.pods.networks == bastion.pods.networks
    assert settings.certificates.keys_group == 65532
    assert settings.bastion.jump_login in bastion.login.jump_names
    assert bastion.listen.port == settings.bastion.port
    grace = named(objects, "Deployment", f"{NAME}-bastion")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > bastion.shutdown_grace


def test_the_switch_for_everything_leaves_nothing() -> None:
    done = template({"enabled": False})
    assert done.returncode == 0, done.stderr
    assert not [one for one in yaml.safe_load_all(done.stdout) if one]


def test_a_pod_of_one_api_keeps_its_state_on_a_disk_that_outlives_the_release() -> None:
    objects = rendered()
    (claim,) = of_kind(objects, "PersistentVolumeClaim")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert "Delete=false" in claim["metadata"]["annotations"]["argocd.argoproj.io/sync-options"]
    deployment = named(objects, "Deployment", f"{NAME}-api")
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert {"name": "state", "persistentVolumeClaim": {"claimName": f"{NAME}-api"}} in (
        deployment["spec"]["template"]["spec"]["volumes"]
    )


def test_several_apis_need_no_disk_and_share_keys_from_a_secret() -> None:
    objects = rendered(HIGHLY_AVAILABLE)
    assert not of_kind(objects, "PersistentVolumeClaim")
    spec = pod_specs(objects)[f"{NAME}-api"]
    (keys,) = [one["projected"] for one in spec["volumes"] if one["name"] == "ca"]
    needed, optional = (source["secret"] for source in keys["sources"])
    assert len(needed["items"]) == 12
    assert [one["path"] for one in optional["items"]] == [f"{ca}/previous.pub" for ca in ("user", "host", "hop")]
    assert optional["optional"] is True
    assert named(objects, "Deployment", f"{NAME}-api")["spec"]["replicas"] == 3


def test_an_upgrade_is_one_pod_more_and_none_less() -> None:
    for part, values in (("bastion", {}), ("api", HIGHLY_AVAILABLE)):
        strategy = named(rendered(values), "Deployment", f"{NAME}-{part}")["spec"]["strategy"]
        assert strategy["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def test_what_is_rendered_is_the_same_every_time() -> None:
    """Under Argo CD every difference is drift, so nothing may be made up while rendering."""
    values = merged(MINIMAL, HIGHLY_AVAILABLE)
    assert template(values).stdout == template(values).stdout


def test_the_job_makes_the_secrets_that_are_not_given() -> None:
    def asked(*parts: Mapping[str, Any]) -> set[str]:
        jobs = of_kind(rendered(*parts), "Job")
        return {one for job in jobs for one in job["spec"]["template"]["spec"]["containers"][0]["args"]}

    assert asked() == {
        "--namespace=hub",
        f"--internal={NAME}-internal",
        f"--cookie={NAME}-cookie",
        f"--host-key={NAME}-host-key",
    }
    assert f"--ca={NAME}-ca" in asked(HIGHLY_AVAILABLE)
    assert asked({"secrets": {"existing": {"internal": "mine"}}}) == {
        "--namespace=hub",
        f"--cookie={NAME}-cookie",
        f"--host-key={NAME}-host-key",
    }
    assert asked(EXISTING) == set()


def test_the_jobs_objects_are_there_before_the_job_and_go_after_it() -> None:
    for one in rendered():
        notes = one["metadata"].get("annotations", {})
        if one["metadata"]["name"] == f"{NAME}-secrets":
            assert notes["helm.sh/hook"] == "pre-install,pre-upgrade"
            assert notes["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
            assert int(notes["helm.sh/hook-weight"]) == (-10 if one["kind"] == "Job" else -20)
        else:
            assert "helm.sh/hook" not in notes


def test_the_services_load_balancer_keeps_clients_addresses() -> None:
    service = named(rendered(), "Service", f"{NAME}-bastion")["spec"]
    assert (service["type"], service["externalTrafficPolicy"]) == ("LoadBalancer", "Local")
    inside = named(rendered(PRIMEHUB), "Service", f"{NAME}-bastion")["spec"]
    assert "externalTrafficPolicy" not in inside


def test_an_ingress_speaks_tls_for_the_public_host() -> None:
    (ingress,) = of_kind(rendered(HIGHLY_AVAILABLE), "Ingress")
    assert ingress["spec"]["tls"] == [{"hosts": ["ssh.example.org"], "secretName": f"{NAME}-api-tls"}]
    assert ingress["spec"]["rules"][0]["host"] == "ssh.example.org"


def test_the_token_comes_from_the_hubs_secret_or_from_where_it_is_said() -> None:
    def source(*parts: Mapping[str, Any]) -> tuple[str, str]:
        (one,) = [
            v["secret"] for v in pod_specs(rendered(*parts))[f"{NAME}-api"]["volumes"] if v["name"] == "hub-token"
        ]
        return one["secretName"], one["items"][0]["key"]

    assert source() == ("hub", "hub.services.ssh.apiToken")
    assert source({"hub": {"serviceName": "shell"}}) == ("hub", "hub.services.shell.apiToken")
    assert source({"hub": {"tokenSecret": {"name": "mine", "key": "token"}}}) == ("mine", "token")


def test_a_namespace_for_each_user_takes_a_cluster_role_and_names_none() -> None:
    objects = rendered({"notebooks": {"namespaces": ["jupyter-*"]}})
    (role,) = of_kind(objects, "ClusterRole")
    assert "namespace" not in role["metadata"]
    assert environment(objects, "bastion")["BASTION_DIRECTORY_NAMESPACES"] == "jupyter-*"
    assert not [one for one in of_kind(objects, "Role") if one["metadata"]["name"] == f"{NAME}-bastion"]


def test_settings_of_ones_own_are_passed_on() -> None:
    objects = rendered(
        {
            "api": {"settings": {"SSH_API_CERTIFICATES_LIFETIME": 28800}},
            "bastion": {"settings": {"BASTION_LOGIN_RAW_KEYS": False}},
        }
    )
    assert environment(objects, "api")["SSH_API_CERTIFICATES_LIFETIME"] == "28800"
    assert environment(objects, "bastion")["BASTION_LOGIN_RAW_KEYS"] == "false"


ELSEWHERE = {
    "SSH_API_HUB_TOKEN",  # from the hub's Secret, as a file
    "SSH_API_DATABASE_URL",  # from a Secret
    "BASTION_METRICS_HOST",
    "BASTION_METRICS_PORT",
    "BASTION_DIRECTORY_KUBECONFIG",  # the service account's place
}
"""Settings that no value may name, because others decide them where they are wanted."""


@pytest.mark.parametrize(("part", "settings"), [("api", ApiSettings), ("bastion", BastionSettings)])
def test_every_setting_of_the_programs_follows_from_values_or_can_be_set(part: str, settings: type[Any]) -> None:
    decided = environment(rendered(), part).keys()
    others = [name for name in setting_names(settings) if name not in decided | ELSEWHERE]
    assert len(others) > 10
    objects = rendered({part: {"settings": dict.fromkeys(others, "x")}})
    assert all(environment(objects, part)[name] == "x" for name in others)


@pytest.mark.parametrize(("value", "text"), [(16777216, "16777216"), (0.25, "0.25"), (True, "true"), ("7", "7")])
def test_a_setting_is_written_as_the_programs_read_it(value: Any, text: str) -> None:
    objects = rendered({"bastion": {"settings": {"BASTION_LIMITS_BUFFERED": value}}})
    assert environment(objects, "bastion")["BASTION_LIMITS_BUFFERED"] == text


def test_labels_and_annotations_of_ones_own_stand_beside_the_charts_each_once() -> None:
    own = MATRIX["labels of one's own"]
    objects = rendered(own)
    for one in objects:
        assert one["metadata"]["labels"]["app.kubernetes.io/part-of"] == "jupyterhub"
        assert one["metadata"]["labels"]["app.kubernetes.io/name"] == "jupyterhub-bastion"
    for part in ("api", "bastion"):
        made = named(objects, "Deployment", f"{NAME}-{part}")
        assert made["metadata"]["labels"]["team"] == "all"
        assert made["spec"]["template"]["metadata"]["labels"]["team"] == part
        assert made["spec"]["selector"]["matchLabels"].items() <= made["spec"]["template"]["metadata"]["labels"].items()
    notes = named(objects, "Deployment", f"{NAME}-bastion")["spec"]["template"]["metadata"]["annotations"]
    assert notes == {"prometheus.io/scrape": "false", "prometheus.io/path": "/metrics", "prometheus.io/port": "9090"}


def test_a_map_that_is_taken_away_is_an_empty_one() -> None:
    away = {"podLabels": None, "podAnnotations": None}
    assert rendered({"commonLabels": None, "api": away, "bastion": away}) == rendered()


def test_a_bastion_that_waits_for_the_api_is_left_waiting_for_a_quarter_of_an_hour() -> None:
    probe = container(rendered(), "bastion")["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 15 * 60


def test_who_sends_connections_hears_that_a_pod_goes_before_its_port_is_closed() -> None:
    objects = rendered(HIGHLY_AVAILABLE, {"bastion": {"shutdownGraceSeconds": 60}})
    for part in ("api", "bastion"):
        program, seconds = container(objects, part)["lifecycle"]["preStop"]["exec"]["command"]
        assert program == "sleep"
        assert 0 < int(seconds) <= pod_specs(objects)[f"{NAME}-{part}"]["terminationGracePeriodSeconds"] - 25
    assert pod_specs(objects)[f"{NAME}-bastion"]["terminationGracePeriodSeconds"] == 10 + 60 + 30
    assert "lifecycle" not in container(rendered(), "api")  # its successor waits for the disk


def test_two_releases_of_one_name_in_two_namespaces_share_no_role() -> None:
    values = merged(MINIMAL, {"notebooks": {"namespaces": ["jupyter-*"]}})
    names = set()
    for namespace in ("hub", "other"):
        objects = [one for one in yaml.safe_load_all(template(values, namespace).stdout) if one]
        (role,), (binding,) = of_kind(objects, "ClusterRole"), of_kind(objects, "ClusterRoleBinding")
        assert binding["roleRef"]["name"] == role["metadata"]["name"] == binding["metadata"]["name"]
        names.add(role["metadata"]["name"])
    assert len(names) == 2


def test_every_port_listens_where_the_value_says() -> None:
    for host in ("0.0.0.0", "::"):
        objects = rendered({"listenHost": host, "bastion": {"metrics": {"enabled": True}}})
        assert environment(objects, "api")["SSH_API_LISTEN_HOST"] == host
        assert environment(objects, "api")["SSH_API_INTERNAL_HOST"] == host
        assert environment(objects, "bastion")["BASTION_LISTEN_HOST"] == host
        assert environment(objects, "bastion")["BASTION_METRICS_HOST"] == host


def test_a_digest_wins_over_a_tag() -> None:
    digest = "sha256:" + "0" * 64
    assert container(rendered({"image": {"digest": digest, "tag": "x"}}), "api")["image"].endswith(f"@{digest}")


def _leaves(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, one in schema.get("properties", {}).items():
        below = f"{path}.{name}" if path else name
        if "properties" in one:
            yield from _leaves(one, below)
        else:
            yield below, one


def _value(values: Any, path: str) -> Any:
    for part in path.split("."):
        values = values[part]
    return values


def test_every_value_is_in_the_schema_and_in_the_readme_with_its_default() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    readme = (CHART / "README.md").read_text()
    for path, one in _leaves(schema):
        assert one["description"].strip(), path
        if path == "global":
            continue
        default = json.dumps(_value(defaults, path))
        row = f"| `{path}` | `{default}` | {one['description']} |"
        assert row in readme, f"the table of values in deploy/chart/README.md needs the row:\n{row}"


def test_nothing_is_open_in_the_schema_that_has_names() -> None:
    def check(schema: Mapping[str, Any], path: str) -> None:
        if "properties" in schema:
            assert schema["additionalProperties"] is False, path
        for name, one in schema.get("properties", {}).items():
            check(one, f"{path}.{name}")

    check(json.loads((CHART / "values.schema.json").read_text()), "")
