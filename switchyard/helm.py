"""`invoke eject --to helm`: values for the vendors' charts, which run a release on Kubernetes, and the objects that they refer to.

The values are templates in ``docker/<name>/helm/``. ``@{word}`` in them is filled in; a comment that begins with ``@`` becomes lines:

    # @environment SERVICE... without KEY...   the services' variables that are not secrets, as a list of names and values
    # @variables SERVICE... without KEY...     the same, as a mapping
    # @secrets SERVICE... without KEY...       the names of the secrets, and of the project's variables, without values
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import yaml
from dotenv import dotenv_values

from switchyard import eject, orchestrators, pins
from switchyard.errors import BadUsage
from switchyard.orchestrators import Orchestrator
from switchyard.placeholders import SETTING
from switchyard.project import Project
from switchyard.release import Release
from switchyard.runtimes.docker.override import embedded
from switchyard.settings import Settings

FOLDER = "helm"
_WORD = re.compile(r"@\{([\w -]+)\}")
_LINES = re.compile(r"^( *)# @(environment|variables|secrets) (.+?)(?: without (.+))?$", re.M)
# dbt connects to PostgreSQL by the host name in the images, whatever its address is: another name would make dbt parse everything again.
POSTGRES_SERVICE = """# The host name of PostgreSQL for all services.
apiVersion: v1
kind: Service
metadata: {name: postgres}
spec: {type: ExternalName, externalName: your.postgres.example} # <- its DNS name; it listens on 5432
"""


def files(settings: Settings, target: Orchestrator, project: Project, release: Release) -> dict[str, str]:
    """The files, by name.

    Args:
        settings: those of the checkout, with the release.
        target: the orchestrator.
        project: the release's project.
        release: the release whose images run.

    Raises:
        BadUsage: there are no values for this orchestrator, or the project cannot run there.
    """
    templates = sorted((settings.root / "docker" / target.name / FOLDER).glob("*.yaml"))
    if not templates:
        why = f"docker/{target.name}/{FOLDER} has none."
        raise BadUsage(f"There are no values for {target.title}'s charts.", why, f"invoke eject {target.name} --to compose")
    if embedded(project):
        why = "Its database is a file in a volume, and on Kubernetes each run is a pod of its own."
        raise BadUsage(f"{project.name} cannot run on Kubernetes: {project.connection}.", why, f"invoke eject {target.name} --to compose")
    repository, _, digest = release.images[target.name].partition("@")
    words = {"repository": repository, "digest": digest, "tag": release.tag, "short": digest[7:17], "name": eject.plain_name(project)}
    words |= {f"version {package}": version for package, version in release.versions[target.name].items()}
    words |= {f"chart {chart}": version for chart, version in pins.versions(settings.root)["charts"].items()}
    services = yaml.safe_load(target.file.read_text(encoding="utf-8"))["services"]
    example = {key: value or "" for key, value in dotenv_values(settings.root / ".env.example", interpolate=False).items()}
    defaults = example | eject.carried(settings, example)
    asked = eject.asked(project)
    made = {path.name: filled(path.read_text(encoding="utf-8"), words, services, defaults, asked) for path in templates}
    return {
        **made,
        "postgres.yaml": POSTGRES_SERVICE,
        eject.INIT: eject.initial(settings, target, project),
        "README.md": readme(target, project, release, made),
    }


def filled(text: str, words: Mapping[str, str], services: Mapping[str, Any], defaults: Mapping[str, str], asked: list[str]) -> str:
    """A template with everything filled in.

    Args:
        text: the template.
        words: the value of each word.
        services: those in the orchestrator's compose file.
        defaults: those in `.env.example`, and the settings that are carried over.
        asked: the names of the variables that the project uses.
    """

    def lines(match: re.Match[str]) -> str:
        indent, kind, names, without = match[1], match[2], match[3].split(), (match[4] or "").split()
        plain, secret = variables([services[name] for name in names], defaults)
        if kind == "secrets":
            found = [f'{key}: ""' for key in [*secret, *asked] if key not in without]
        else:
            form = "- {{name: {}, value: {}}}" if kind == "environment" else "{}: {}"
            found = [form.format(key, json.dumps(value)) for key, value in plain.items() if key not in without]
        return "\n".join(indent + line for line in found)

    return _WORD.sub(lambda match: words[match[1]], _LINES.sub(lines, text))


def variables(services: list[Mapping[str, Any]], defaults: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The environment of services: the variables that are not secrets, with their values, and the names of the secrets.

    A variable is a secret if it contains a secret of `.env`, or if the service hides it from dbt.
    """
    plain: dict[str, str] = {}
    secret: dict[str, None] = {}
    for body in services:
        environment = orchestrators.variables(body, passed_on=True)
        kept = environment.get("SWITCHYARD_SECRETS", "").split()
        for key, value in environment.items():
            if key in kept or any(defaults.get(match[2], "").startswith("<") for match in SETTING.finditer(value)):
                secret[key] = None
            else:
                plain[key] = SETTING.sub(partial(_set, defaults), value)
    return plain, list(secret)


def _set(defaults: Mapping[str, str], match: re.Match[str]) -> str:
    """The value for a variable in the compose file; ``${KEY:+other}``, as for WORKERS, becomes empty."""
    return match[1] or ("" if match[3] == ":+" else defaults.get(match[2]) or match[4] or "")


def commands(made: Mapping[str, str]) -> Iterator[str]:
    """The commands in the files' comments, in the order in which to type them."""
    for _, text in sorted(made.items()):
        for line in text.splitlines():
            if re.match("# (helm|kubectl) ", line):
                yield line.removeprefix("# ")


def readme(target: Orchestrator, project: Project, release: Release, made: Mapping[str, str]) -> str:
    """How to start it, what to change, and what it costs."""
    typed = "\n".join(commands(made))
    measured = f"When idle, the services take about {target.memory} MiB of memory, PostgreSQL included; a run takes up to 2 GiB more"
    idle = f"\n{measured} while it lasts.\n" if target.memory else ""
    return f"""# {project.name} on {target.title}, on Kubernetes

Made from the release {release.tag} (commit {release.commit[:12]}): values for the vendor's charts, with its image by digest. These
files are yours: nothing here needs the checkout that wrote them. The tests of that checkout render the values and
validate the result, but run no cluster: try them first where nothing depends on it.

1. PostgreSQL 16 on port 5432, anywhere: put its DNS name into `postgres.yaml`. Run `{eject.INIT}` there once, by psql as a superuser, with
   the passwords that its first lines read in the environment.
2. Fill in `secrets.yaml`. `openssl rand -base64 48 | tr '+/' '-_'` makes a password, `openssl rand -base64 32 | tr '+/' '-_'` a Fernet key.
3. Where the registry needs a sign-in, set the charts' values for pull secrets, and add one to the default service account for the rest.
4. Then, with your namespace for NAMESPACE:

```sh
kubectl apply --namespace NAMESPACE --filename postgres.yaml --filename secrets.yaml
{typed}
```

| to change | where |
|---|---|
| a newer release of the project | the digest and the tag, from its `release.json`; then the same commands |
| a newer chart | `--version`, after you have tried it |
| old runs | no start deletes them here, as in Compose (`RETENTION_DAYS`): schedule that, unless the product's server does it |
| logs of runs | they are deleted with the pod, unless you set up what the chart offers: a volume that all pods share, or remote logging |
| memory and CPU | `resources`: they begin with what was measured on one machine, for a small project |
| schedules | `SCHEDULES_ENABLED`, or each on the page |
| the page for people | `kubectl port-forward`, or an ingress with TLS and a sign-in |

Before a newer release, make a backup of the database: an older release may not start on one that a newer one has used. Everyone who
may read pods and jobs in the namespace can read their environments.
{idle}"""
