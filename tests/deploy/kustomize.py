"""`kubectl kustomize` for what deploy/k8s uses of it, so that tests need no kubectl.

Resources, components, strategic merge patches, generated ConfigMaps (without the hash in their
names), image tags and the namespace. `test_k8s` compares it with the real one where that is
installed.
"""

from pathlib import Path
from typing import Any

import yaml

Resource = dict[str, Any]
# What tells the items of a list apart in a strategic merge patch; other lists are replaced.
MERGE_KEYS = {
    "containers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
}
CLUSTER_WIDE = {"Namespace"}


def rendered(folder: Path, *components: Path) -> list[Resource]:
    """The resources of a folder with a kustomization, and of components that are added to it."""
    return _kustomized([], folder, components)


def _kustomized(
    found: list[Resource], folder: Path, components: tuple[Path, ...] = ()
) -> list[Resource]:
    told = yaml.safe_load((folder / "kustomization.yaml").read_text())
    for name in told.get("resources", []):
        path = folder / name
        found = _kustomized(found, path) if path.is_dir() else [*found, *_documents(path)]
    for component in [*(folder / name for name in told.get("components", [])), *components]:
        found = _kustomized(found, component)
    for generator in told.get("configMapGenerator", []):
        found = _generated(found, generator, folder)
    for patch in told.get("patches", []):
        for document in _documents(folder / patch["path"]):
            found = _patched(found, document)
    for image in told.get("images", []):
        for resource in found:
            _retag(resource, image)
    for resource in found:
        if "namespace" in told and resource["kind"] not in CLUSTER_WIDE:
            resource["metadata"]["namespace"] = told["namespace"]
        for labels in told.get("labels", []):
            # Anew, since an alias may share them.
            shared = resource["metadata"].get("labels", {})
            resource["metadata"]["labels"] = {**shared, **labels["pairs"]}
    return found


def _documents(path: Path) -> list[Resource]:
    return list(yaml.safe_load_all(path.read_text()))


def _generated(found: list[Resource], generator: Resource, folder: Path) -> list[Resource]:
    lines = [
        line
        for file in generator.get("envs", [])
        for line in (folder / file).read_text().splitlines()
    ]
    pairs = (line.partition("=") for line in [*lines, *generator.get("literals", [])] if line)
    data = {name: value for name, _, value in pairs}
    new = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}}
    if generator.get("behavior") == "merge":
        return _patched(found, {**new, "data": data})
    return [*found, {**new, "data": data}]


def _patched(found: list[Resource], patch: Resource) -> list[Resource]:
    (index,) = [i for i, resource in enumerate(found) if _identity(resource) == _identity(patch)]
    if patch.get("$patch") == "delete":
        return [*found[:index], *found[index + 1 :]]
    return [*found[:index], _merged(found[index], patch), *found[index + 1 :]]


def _identity(resource: Resource) -> tuple[str, str, str]:
    return resource["apiVersion"], resource["kind"], resource["metadata"]["name"]


def _merged(below: Any, above: Any, key: str | None = None) -> Any:
    if isinstance(below, dict) and isinstance(above, dict):
        merged = {
            name: _merged(below.get(name), value, MERGE_KEYS.get(name))
            for name, value in above.items()
        }
        return {**below, **merged}
    if isinstance(below, list) and isinstance(above, list) and key:
        items = {item[key]: item for item in below}
        for item in above:
            if item.get("$patch") == "delete":
                del items[item[key]]
            else:
                items[item[key]] = _merged(items.get(item[key]), item)
        return list(items.values())
    return above


def _retag(value: Any, image: Resource) -> None:
    if isinstance(value, dict):
        if (
            isinstance(value.get("image"), str)
            and value["image"].partition(":")[0] == image["name"]
        ):
            value["image"] = f"{image.get('newName', image['name'])}:{image['newTag']}"
        for part in value.values():
            _retag(part, image)
    elif isinstance(value, list):
        for part in value:
            _retag(part, image)
