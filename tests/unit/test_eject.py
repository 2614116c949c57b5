"""Ejected files, which run a release elsewhere: each is read as the program that uses it reads it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values

from rundbt import alerts
from switchyard import eject, helm, orchestrators, pins, python_packages, release
from switchyard import project as projects
from switchyard.errors import BadUsage

from ..stacks import ROOT
from .test_release import DIGEST, GOOD

NAMES = ("airflow", "dagster", "prefect")
CONTENT = {
    **GOOD,
    "images": {name: f"localhost:5000/shop/{name}@{DIGEST}" for name in ("postgres", *NAMES)},
    "versions": {name: python_packages.versions(ROOT, name) for name in NAMES},
}
# The vendors' own images, which come with the charts.
VENDORS = ("docker.io/busybox:1.28", f"prefecthq/prefect:{CONTENT['versions']['prefect']['prefect']}-python3.12-kubernetes")
PRODUCTS = {"airflow": "apache-airflow", "dagster": "dagster", "prefect": "prefect"}
CHARTS = {  # chart and values file
    "airflow": [("airflow", "values.yaml")],
    "dagster": [("dagster", "values.yaml")],
    "prefect": [("prefect-server", "server.yaml"), ("prefect-worker", "worker.yaml")],
}


@pytest.fixture
def ejected(root, unconfigured, tmp_path):
    """Writes the files of an orchestrator, for Compose or for Kubernetes, and returns their folder."""

    def write(name: str, to: Any = eject, **variables: str) -> Path:
        (tmp_path / "release.json").write_text(json.dumps(CONTENT))
        target = orchestrators.load_all(root)[name]
        found = projects.load(unconfigured, {})
        object.__setattr__(found, "variables", variables)
        eject.write(tmp_path / name, to.files(unconfigured, target, found, release.read(tmp_path / "release.json")), "invoke eject", "")
        return tmp_path / name

    return write


@pytest.mark.parametrize("name", NAMES)
def test_the_compose_file_needs_nothing_from_the_checkout(ejected, root, name) -> None:
    folder = ejected(name, API_KEY="secret of mine")
    text = (folder / "compose.yaml").read_text()
    content = yaml.safe_load(text)
    known = orchestrators.load_all(root)[name]
    assert content["services"].keys() == {"postgres", *known.services, *known.scaled}
    for service, body in content["services"].items():
        if service != "redis":
            assert body["image"] == CONTENT["images"]["postgres" if service == "postgres" else name]
        assert not body.keys() & {"build", "pull_policy", "container_name", "labels", "extends"}
        for volume in body.get("volumes", []):
            assert volume.partition(":")[0] in (*content["volumes"], f"./{eject.INIT}")
        assert all(port.startswith("127.0.0.1:") for port in body.get("ports", []))
    assert not re.search(r"invoke|\.\./|COMPOSE_PROJECT_NAME|secret of mine", text)
    assert "API_KEY: ${PROJECT_API_KEY?set it in .env}" in text  # an empty one would replace a default that the project has


@pytest.mark.parametrize("name", NAMES)
def test_each_variable_of_the_compose_file_is_in_the_example(ejected, name) -> None:
    folder = ejected(name, API_KEY="x")
    example = (folder / ".env.example").read_text()
    asked = set(re.findall(r"\$\{(\w+)", (folder / "compose.yaml").read_text()))
    assert set(re.findall(r"^#?(\w+)=", example, re.M)) == asked
    # Exactly the secrets have to be filled in; the variables of the project may be left out.
    filled = dict(re.findall(r"^(\w+)=(.*)$", example, re.M))
    assert "\n#PROJECT_API_KEY=\n" in example
    assert set(filled.values()) <= {"<password>", "<key>", "<long-key>"}
    assert {"POSTGRES_PASSWORD", "DBT_PASSWORD", f"{name.upper()}_DB_PASSWORD"} <= filled.keys()


@pytest.mark.parametrize("to", [eject, helm], ids=["compose", "helm"])
@pytest.mark.parametrize("name", NAMES)
def test_settings_are_ejected_without_secrets_and_ports(ejected, unconfigured, name, to) -> None:
    unconfigured.values.update(SCHEDULES_ENABLED="true", ALERT_WEBHOOK="https://hooks.example.com/x", DAGSTER_PORT="3999")
    texts = "".join(path.read_text() for path in ejected(name, to).iterdir())
    assert re.search(r'^SCHEDULES_ENABLED=true$|SCHEDULES_ENABLED"?,? ?(value)?: "true"', texts, re.M)
    assert "hooks.example.com" not in texts
    assert "3999" not in texts


@pytest.mark.skipif(os.name == "nt", reason="the commands are a POSIX shell's")
def test_the_secrets_command_of_the_readme_makes_secrets(ejected) -> None:
    folder = ejected("airflow")
    script = re.search(r"```sh\n(.*?)docker compose", (folder / "README.md").read_text(), re.S)[1]
    subprocess.run(["sh", "-euc", script], cwd=folder, check=True)
    made = dict(re.findall(r"^(\w+)=(.*)$", (folder / ".env").read_text(), re.M))
    assert (folder / ".env").stat().st_mode & 0o77 == 0
    assert len(made["AIRFLOW_FERNET_KEY"]) == 44
    for key in made.keys() - {"AIRFLOW_FERNET_KEY"}:
        assert re.fullmatch(r"[\w-]{64}", made[key])
    assert len(set(made.values())) == len(made)


@pytest.mark.parametrize("to", [eject, helm], ids=["compose", "helm"])
@pytest.mark.parametrize("name", NAMES)
def test_the_database_gets_its_passwords_from_the_environment(ejected, name, to) -> None:
    script = (ejected(name, to) / eject.INIT).read_text()
    keys = re.findall(r"^\\getenv (\w+) (\w+)$", script, re.M)
    assert {key for key, _ in keys} == {"DBT_PASSWORD", f"{name.upper()}_DB_PASSWORD"}
    assert set(re.findall(r"password (\S+);", script)) == {f":'{key}'" for key, _ in keys}
    assert "switchyard" not in script


@pytest.mark.parametrize("own", [{"A": "b=c", "D": None}, ["A=b=c", "D"], None], ids=["a mapping", "a list", "none"])
def test_a_service_may_have_its_variables_in_both_forms_of_compose_or_none(own) -> None:
    body = {"volumes": ["x:/opt/dbt/project:ro"], **({"environment": own} if own else {})}
    found = eject.service(body, "image", {"environment": {"API_KEY": "${API_KEY}"}, "volumes": []})
    assert found["environment"] == {**({"A": "b=c", "D": None} if own else {}), "API_KEY": "${API_KEY}"}
    assert helm.variables([body], {}) == ({"A": "b=c"} if own else {}, [])


@pytest.mark.parametrize("to", [eject, helm], ids=["compose", "helm"])
@pytest.mark.parametrize("memory", [770, 0])
def test_memory_that_was_not_measured_is_not_stated(ejected, monkeypatch, root, memory, to) -> None:
    known = orchestrators.load_all(root)
    monkeypatch.setattr(orchestrators, "load_all", lambda _: {"dagster": replace(known["dagster"], memory=memory)})
    text = (ejected("dagster", to) / "README.md").read_text()
    assert ("When idle" in text, "770 MiB" in text, " 0 MiB" in text) == (bool(memory), bool(memory), False)


def test_ejected_files_are_never_replaced(tmp_path) -> None:
    (tmp_path / "mine").write_text("edited")
    with pytest.raises(BadUsage, match="is not empty"):
        eject.write(tmp_path, {"mine": "new"}, "invoke eject", "")
    assert (tmp_path / "mine").read_text() == "edited"


def documents(text: str) -> list[dict[str, Any]]:
    """The Kubernetes objects in a text."""
    return [one for one in yaml.safe_load_all(text) if one]


def walked(value: Any, key: str) -> list[Any]:
    """Every value under a key, at any depth."""
    if isinstance(value, dict):
        return [one for name, inner in value.items() for one in ([inner] if name == key else []) + walked(inner, key)]
    return [one for inner in value for one in walked(inner, key)] if isinstance(value, list) else []


def in_plain(one: dict[str, Any]) -> set[str]:
    """The variables that an object holds with a value: those of its containers, and the keys of a ConfigMap."""
    entries = [entry for found in walked(one, "env") if isinstance(found, list) for entry in found]
    config = one.get("data") or {} if one["kind"] == "ConfigMap" else {}
    return {entry["name"] for entry in entries if entry.get("value")} | {key for key, value in config.items() if value}


def in_texts(text: str) -> list[dict[str, Any]]:
    """The Kubernetes objects that ConfigMaps hold as text, such as a run's pod, without the values that a template fills in."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(one) for key, one in value.items() if not (isinstance(one, str) and "{{" in one)}
        return [plain(one) for one in value] if isinstance(value, list) else value

    found = []
    for one in documents(text):
        for held in (one.get("data") or {}).values() if one["kind"] == "ConfigMap" else ():
            try:
                content = yaml.safe_load(held)
            except yaml.YAMLError:
                continue
            if isinstance(content, dict):
                content = content.get("job_configuration", {}).get("job_manifest", content)
                found += [plain(content)] if "kind" in content else []
    return found


def test_the_pod_of_a_prefect_run_has_the_image_and_no_rights(ejected) -> None:
    (job,) = in_texts((ejected("prefect", helm) / "set-up.yaml").read_text())
    assert job["kind"] == "Job"
    pod = job["spec"]["template"]["spec"]
    assert pod.keys() <= {"restartPolicy", "automountServiceAccountToken", "securityContext", "containers"}
    (container,) = pod["containers"]
    assert container["image"] == f"localhost:5000/shop/prefect@{DIGEST}"
    assert container["securityContext"]["allowPrivilegeEscalation"] is False


def test_prefects_set_up_on_kubernetes_knows_the_webhook(ejected) -> None:
    """It makes the automation that sends the alert for a crashed flow run, and deletes it without an address."""
    folder = ejected("prefect", helm)
    (job,) = (one for one in documents((folder / "set-up.yaml").read_text()) if one["kind"] == "Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (given,) = (variable["valueFrom"]["secretKeyRef"] for variable in container["env"] if variable["name"] == alerts.VARIABLE)
    secrets = {one["metadata"]["name"]: one["stringData"] for one in documents((folder / "secrets.yaml").read_text())}
    assert given["key"] in secrets[given["name"]]


@pytest.mark.parametrize("name", NAMES)
def test_kubernetes_secrets_are_empty_and_each_one_that_is_used_exists(ejected, name) -> None:
    folder = ejected(name, helm, API_KEY="secret of mine")
    secrets = {one["metadata"]["name"]: one["stringData"] for one in documents((folder / "secrets.yaml").read_text())}
    assert {value for data in secrets.values() for value in data.values()} == {""}
    assert "API_KEY" in secrets["shop-environment"]
    for file in folder.glob("*.yaml"):
        text = file.read_text()
        assert "@" not in re.sub(r"@sha256:|//\S+@", "", text).replace("PASSWORD@", ""), file
        assert "secret of mine" not in text
        assert set(re.findall(r"shop-[\w-]+", text)) <= secrets.keys(), file


@pytest.mark.parametrize("name", NAMES)
def test_each_chart_is_installed_in_its_stated_version(ejected, name) -> None:
    text, stated = (ejected(name, helm) / "README.md").read_text(), pins.versions(ROOT)["charts"]
    assert [chart for chart, _ in CHARTS[name] if f"/{chart} --version {stated[chart]} " not in text] == []


def test_an_orchestrator_without_chart_values_is_reported(ejected, root, monkeypatch) -> None:
    monkeypatch.setattr(helm, "FOLDER", "nowhere")
    with pytest.raises(BadUsage, match="no values") as caught:
        ejected("dagster", helm)
    assert "--to compose" in caught.value.next


@pytest.mark.parametrize("name", NAMES)
def test_the_vendors_charts_accept_the_values(ejected, tmp_path, name) -> None:
    """HELM_CHARTS is a folder with the charts, each with its dependencies unpacked in charts/ (docs/testing.md)."""
    charts = os.environ.get("HELM_CHARTS")
    if not charts or not shutil.which("helm"):
        pytest.skip("HELM_CHARTS is not set, or helm is not installed")
    folder = ejected(name, helm)
    stated, product = pins.versions(ROOT)["charts"], python_packages.versions(ROOT, name)[PRODUCTS[name]]
    rendered = []
    for chart, values in CHARTS[name]:
        about = yaml.safe_load(Path(charts, chart, "Chart.yaml").read_text())
        assert about["version"] == stated[chart]
        assert str(about["appVersion"]).split(".")[0] == product.split(".")[0]
        command = ["helm", "template", chart, f"{charts}/{chart}", "--values", str(folder / values), "--kube-version", "1.32.0"]
        # The schema of Dagster's chart refers to others on the network.
        done = subprocess.run([*command, *(["--skip-schema-validation"] if chart == "dagster" else [])], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        rendered.append(done.stdout)
    rendered += [file.read_text() for file in folder.glob("*.yaml") if file.name not in dict(map(reversed, CHARTS[name]))]
    pods = [pod for text in rendered for pod in in_texts(text)]
    assert pods or name == "dagster", "the chart has no template of the pod in which dbt runs"
    rendered += [yaml.safe_dump({**pod, "metadata": {"name": "run"}}) for pod in pods]
    for number, text in enumerate(rendered):
        (tmp_path / f"{number}.yaml").write_text(text)
        validate = [sys.executable, "-m", "kubernetes_validate", "--strict", "-k", "1.32", str(tmp_path / f"{number}.yaml")]
        done = subprocess.run(validate, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    services = yaml.safe_load(orchestrators.load_all(ROOT)[name].file.read_text())["services"].values()
    own = [body for body in services if "environment" in body]
    _, secrets = helm.variables(own, dotenv_values(ROOT / ".env.example", interpolate=False))
    assert {"DBT_ENV_SECRET_PASSWORD", "ALERT_WEBHOOK"} <= set(secrets)
    assert {key for text in rendered for one in documents(text) for key in in_plain(one)} & set(secrets) == set()
    images = {image for text in rendered for one in documents(text) for image in walked(one, "image") if isinstance(image, str)}
    assert images
    for image in images - set(VENDORS):
        assert re.fullmatch(rf"localhost:5000/shop/{name}(:2026\.11\.1)?@{DIGEST}", image)
    assert any("name: shop-environment" in text or '"name": "shop-environment"' in text for text in rendered)
