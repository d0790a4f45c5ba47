"""deploy/k8s: valid against Kubernetes' own schemas, and each part fits the others."""

import json
import re
import shutil
import subprocess

import kubernetes_validate
import pytest
import yaml

from service.settings import fields, load_settings
from tests.cli.conftest import ROOT
from tests.deploy.kustomize import rendered

K8S = ROOT / "deploy" / "k8s"
VARIANTS = {
    "cpu": (K8S / "cpu",),
    "gpu": (K8S / "gpu",),
    "object-store": (K8S / "cpu", K8S / "object-store"),
}
KUBERNETES = "1.30"
CUSTOM = {"ServiceMonitor"}  # the Prometheus operator's own; no schema of it is installed
SELECTORS = {"Service", "PodDisruptionBudget", "NetworkPolicy", "ServiceMonitor"}


@pytest.fixture(params=VARIANTS)
def resources(request):
    return rendered(*VARIANTS[request.param])


@pytest.fixture
def one(resources):
    """kind -> the only resource of it."""
    by_kind = {resource["kind"]: resource for resource in resources}
    assert len(by_kind) == len(resources)
    return by_kind


@pytest.mark.parametrize("variant", VARIANTS)
def test_kubectl_renders_the_same(variant, tmp_path):
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    folder, *components = VARIANTS[variant]
    copied = tmp_path / "k8s"
    shutil.copytree(K8S, copied)
    if components:
        with (copied / folder.name / "kustomization.yaml").open("a") as file:
            file.write(f"components: [../{components[0].name}]\n")
    told = subprocess.run(
        ["kubectl", "kustomize", copied / folder.name], capture_output=True, text=True, check=True
    ).stdout
    unhashed = re.sub(r"(turnpoint-settings)-[a-z0-9]{10}\b", r"\1", told)
    assert _by_kind(yaml.safe_load_all(unhashed)) == _by_kind(rendered(*VARIANTS[variant]))


def test_it_follows_kubernetes_schemas(resources):
    for resource in resources:
        if resource["kind"] not in CUSTOM:
            kubernetes_validate.validate(resource, KUBERNETES, strict=True)
    broken = {**resources[0], "imagine": "x"}
    with pytest.raises(kubernetes_validate.ValidationError, match="imagine"):
        kubernetes_validate.validate(broken, KUBERNETES, strict=True)


def test_the_secrets_template_has_what_is_mounted_and_named():
    secrets = {
        s["metadata"]["name"]: s
        for s in yaml.safe_load_all((K8S / "secrets.example.yaml").read_text())
    }
    for secret in secrets.values():
        kubernetes_validate.validate(secret, KUBERNETES, strict=True)
    assert set(secrets["turnpoint-keys"]["stringData"]) == {"keys", "admin_keys"}
    named = _named_secrets(rendered(*VARIANTS["object-store"]))
    assert named == set(secrets)


def test_selectors_find_the_pods(one):
    labels = one["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert one["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    for kind in SELECTORS:
        spec = one[kind]["spec"]
        selector = spec.get("podSelector") or spec["selector"]
        wanted = selector.get("matchLabels", selector)
        found = one["Service"]["metadata"]["labels"] if kind == "ServiceMonitor" else labels
        assert wanted.items() <= found.items(), kind


def test_ports_have_one_name(one):
    (container,) = one["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert [port["name"] for port in container["ports"]] == ["http"]
    (port,) = one["Service"]["spec"]["ports"]
    (scraped,) = one["ServiceMonitor"]["spec"]["endpoints"]
    (let_in,) = one["NetworkPolicy"]["spec"]["ingress"]
    probes = [container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")]
    assert {port["name"], port["targetPort"], scraped["port"], let_in["ports"][0]["port"]} == {
        "http"
    }
    assert [(probe["path"], probe["port"]) for probe in probes] == [
        ("/livez", "http"),
        ("/livez", "http"),
        ("/readyz", "http"),
    ]


def test_the_autoscaler_asks_for_what_the_adapter_gives(one):
    target = one["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", one["Deployment"]["metadata"]["name"])
    (metric,) = one["HorizontalPodAutoscaler"]["spec"]["metrics"]
    (rule,) = yaml.safe_load((K8S / "adapter.yaml").read_text())["rules"]["custom"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    assert "turnpoint_queue_seconds_count" in rule["seriesQuery"]
    assert set(re.findall(r"turnpoint_\w+", rule["metricsQuery"])) == {
        "turnpoint_queue_seconds_sum",
        "turnpoint_queue_seconds_count",
    }


def test_the_service_starts_with_what_it_is_given(one, monkeypatch):
    pod = one["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    given = one["ConfigMap"]["data"]
    named = {variable["name"] for variable in container.get("env", [])}
    assert given.keys() | named <= fields().keys()
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.server.port == container["ports"][0]["containerPort"]
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > pause + settings.server.drain_seconds
    # Else Kubernetes would add TURNPOINT_PORT and others, which stop the start.
    assert pod["enableServiceLinks"] is False


def test_the_pod_may_do_nothing_and_write_nowhere_else(one):
    pod = one["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert re.fullmatch(r".+:\d+\.\d+\.\d+(-cuda)?", container["image"])


def test_a_gpu_pod_has_a_gpu_and_says_so():
    one = {resource["kind"]: resource for resource in rendered(K8S / "gpu")}
    (container,) = one["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert one["ConfigMap"]["data"]["TURNPOINT_SERVER__DEVICE"] == "cuda"
    assert container["image"].endswith("-cuda")


def test_an_object_store_takes_the_volumes_place():
    resources = rendered(*VARIANTS["object-store"])
    assert "PersistentVolumeClaim" not in {resource["kind"] for resource in resources}
    assert "turnpoint-registry" not in json.dumps(resources)
    (settings,) = [r["data"] for r in resources if r["kind"] == "ConfigMap"]
    assert settings["TURNPOINT_REGISTRY__ADDRESS"].startswith("s3://")


def _by_kind(resources):
    """Resources by kind, as plain JSON."""
    return {resource["kind"]: json.loads(json.dumps(resource)) for resource in resources}


def _named_secrets(resources):
    (pod,) = [r["spec"]["template"]["spec"] for r in resources if r["kind"] == "Deployment"]
    (container,) = pod["containers"]
    mounted = {v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v}
    sources = [
        source["secretRef"]["name"] for source in container["envFrom"] if "secretRef" in source
    ]
    keys = [variable["valueFrom"]["secretKeyRef"]["name"] for variable in container["env"]]
    return mounted | set(sources) | set(keys)
