"""`invoke eject --to compose`: a Compose file that runs a release without this checkout, and that the user maintains from then on."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from dotenv import dotenv_values

from rundbt import jobs
from switchyard import bootstrap, checks, console
from switchyard.errors import BadUsage
from switchyard.orchestrators import PROJECT_MOUNT, Orchestrator, pairs
from switchyard.placeholders import SETTING
from switchyard.project import Project
from switchyard.release import Release
from switchyard.runtimes.docker import argv
from switchyard.runtimes.docker.override import WAREHOUSE_VOLUME, embedded
from switchyard.runtimes.runtime import POSTGRES
from switchyard.settings import Settings, for_compose

ENV = ".env"
INIT = "postgres-init.sql"
OF_PROJECT = "PROJECT_"  # the prefix of the project's variables in `.env`
LEFT_OUT = ("image", "build", "pull_policy", "labels", "container_name")  # keys of a service that only this checkout needs
_MISSING = "set it in .env"


class Plain(yaml.SafeDumper):
    """YAML without anchors: each service is complete by itself."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def files(settings: Settings, target: Orchestrator, project: Project, release: Release) -> dict[str, str]:
    """The files for Compose, by name.

    Args:
        settings: those of the checkout, with the release.
        target: the orchestrator.
        project: the release's project.
        release: the release whose images run.
    """
    own, shared = (yaml.safe_load(file.read_text(encoding="utf-8")) for file in (target.file, argv.postgres_file(settings)))
    services = {POSTGRES: service(shared["services"][POSTGRES], release.images[POSTGRES], {})}
    # With a prefix in `.env`, where the stack may have a variable of the same name. One that is unset is an error: passed on as an
    # empty string, it would replace a default that the project has.
    variables: dict[str, Any] = {"environment": {key: f"${{{OF_PROJECT}{key}?{_MISSING}}}" for key in asked(project)}, "volumes": []}
    if embedded(project):
        variables["volumes"] = [f"{WAREHOUSE_VOLUME}:/opt/dbt/warehouse"]
    for name, body in own["services"].items():
        if "extends" in body:
            file = target.file.with_name(body["extends"]["file"])
            base = yaml.safe_load(file.read_text(encoding="utf-8"))["services"][body["extends"]["service"]]
            services[name] = service({**base, "deploy": body["deploy"]}, base["image"], {})
        else:
            services[name] = service(body, release.images[target.name], variables)
        if name in target.scaled:  # so that Compose pulls no broker where there are no workers
            services[name]["profiles"] = ["workers"]
    postgres = services[POSTGRES]
    postgres["environment"] |= {key: f"${{{key}:?{_MISSING}}}" for key in passwords(target)}
    postgres["volumes"].append(f"./{INIT}:/docker-entrypoint-initdb.d/{INIT}:ro,z")  # z: for SELinux
    content: dict[str, Any] = {"name": f"{plain_name(project)}-{target.name}", "services": services}
    content["volumes"] = {**shared.get("volumes", {}), **own.get("volumes", {})}
    if embedded(project):
        content["volumes"][WAREHOUSE_VOLUME] = None
    makers = dotenv_values(settings.root / ".env.example", interpolate=False)
    text = f"# {project.name} on {target.title}, release {release.tag}. Yours from now on; README.md explains how to start it.\n"
    text += yaml.dump(content, Dumper=Plain, sort_keys=False, width=1000)
    return {
        "compose.yaml": text,
        INIT: initial(settings, target, project),
        ".env.example": to_fill_in(text, makers, carried(settings, makers)),
        "README.md": readme(target, project, release, makers[target.ui_port] or ""),
    }


def passwords(target: Orchestrator) -> list[str]:
    """The keys of the passwords of its roles in PostgreSQL."""
    return ["DBT_PASSWORD", *([target.database_key] if target.database else [])]


def asked(project: Project) -> list[str]:
    """The variables that the project uses, whether they are set on this machine or not."""
    return sorted({*project.in_container(), *project.missing})


def plain_name(project: Project) -> str:
    """The project's name in a form that Compose and Kubernetes accept."""
    return re.sub("[^a-z0-9]+", "-", project.name.lower()).strip("-") or "dbt"


def service(body: Mapping[str, Any], image: str, project: Mapping[str, Any]) -> dict[str, Any]:
    """A service without the keys that need this checkout; one that mounts the dbt project gets what ``project`` needs instead."""
    found: dict[str, Any] = {"image": image, **{key: _plain(value) for key, value in body.items() if key not in LEFT_OUT}}
    volumes = found.pop("volumes", [])
    kept = [volume for volume in volumes if not volume.endswith(PROJECT_MOUNT)]
    if len(kept) < len(volumes):
        found["environment"] = {**pairs(found, "environment"), **project["environment"]}
        kept += project["volumes"]
    return {**found, "volumes": kept} if kept else found


def _plain(value: Any) -> Any:
    """A value whose messages for missing variables do not mention a command of this checkout."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, str):
        return SETTING.sub(lambda match: f"${{{match[2]}:?{_MISSING}}}" if match[3] == ":?" else match[0], value)
    return value


def initial(settings: Settings, target: Orchestrator, project: Project) -> str:
    """The script that a new PostgreSQL runs once: roles, databases and rights, with the passwords from its environment."""
    keys = passwords(target)
    marked = Settings(settings.root, {**settings.values, **{key: f"@{key}@" for key in keys}}, settings.compose_name)
    script = bootstrap.sql(marked, [target], project.database if project.shared else bootstrap.WAREHOUSE, alone=True)
    for key in keys:
        script = script.replace(bootstrap.literal(f"@{key}@"), f":'{key}'")
    return "".join(f"\\getenv {key} {key}\n" for key in keys) + script


def carried(settings: Settings, example: Mapping[str, str | None]) -> dict[str, str]:
    """The settings of this checkout that are carried over: no secrets, no ports, nothing of this machine.

    Args:
        settings: those of the checkout.
        example: the content of `.env.example`, where a secret has a placeholder for its kind.
    """
    left = {key for key, value in example.items() if (value or "").startswith("<") or key.endswith("_PORT")}
    left |= {"ALERT_WEBHOOK", "NETWORK", "WORKERS"}  # a secret, a swarm's driver, and a number that has to match Compose's profiles
    others = ("POSTGRES_", "SWITCHYARD_")  # derived from this machine's memory, and those of this checkout only
    return {key: value for key, value in settings.values.items() if key not in left and not key.startswith(others)}


def to_fill_in(text: str, makers: Mapping[str, str | None], values: Mapping[str, str]) -> str:
    """An `.env` to fill in, with each variable of the file: secrets first, then the project's variables, then those with defaults.

    Args:
        text: the compose file.
        makers: the placeholder of each secret.
        values: the settings to write where they differ from the file's defaults.
    """
    found = [match.groups()[1:] for match in SETTING.finditer(text) if match[2]]
    needed = {name for name, kind, _ in found if kind == ":?"}
    defaults = {name: default for name, kind, default in found if kind == ":-" and name not in needed}
    defaults |= {name: "" for name, kind, _ in found if kind == ":+"}  # where any value, even 0, counts as set
    asked = {name for name, _, _ in found} - needed - defaults.keys()
    lines = ["# Secrets; README.md has a command that makes them.", *(f"{name}={makers.get(name) or ''}" for name in sorted(needed))]
    use = "# The project's variables: set each here, or delete its line from compose.yaml if the project's default will do."
    lines += ["", use, *(f"#{name}=" for name in sorted(asked))] if asked else []
    own = {name: values[name] for name, default in defaults.items() if values.get(name, default) != default}
    lines += ["", "# As set in the checkout.", *(f"{name}={quoted(value)}" for name, value in sorted(own.items()))] if own else []
    lines += ["", "# These have defaults.", *(f"#{name}={default}" for name, default in sorted(defaults.items()) if name not in own)]
    return "\n".join(lines) + "\n"


def quoted(value: str) -> str:
    """A value as it is written in `.env`."""
    return value if re.fullmatch(r"[\w./:@+-]*", value) else for_compose(value)


def readme(target: Orchestrator, project: Project, release: Release, port: str) -> str:
    """How to start it, what to change, and what it costs."""
    name = jobs.first(jobs.read(project.folder)) or "daily"
    job = shlex.join((*target.run, name))
    idle = f"When idle, it takes about {target.memory} MiB of memory. " if target.memory else ""
    return f"""# {project.name} on {target.title}

Made from the release {release.tag} (commit {release.commit[:12]}). These files are yours: nothing here needs the checkout that wrote them.

Make the secrets, start, and run the job `{name}`:

```sh
umask 077
while IFS= read -r line; do
    case $line in
        *'=<key>') line=${{line%<*}}$(openssl rand -base64 32 | tr '+/' '-_') ;;
        *=\\<*\\>) line=${{line%<*}}$(openssl rand -base64 48 | tr '+/' '-_') ;;
    esac
    printf '%s\\n' "$line"
done < .env.example > .env
docker compose up -d --wait
docker compose exec {target.service} {job}
```

The page is http://localhost:{port}{target.ui_path}. Sign-in: `{target.sign_in}`. If the first start fails, the
database may have no roles: fix what its log shows, then `docker compose down --volumes`, and start again.

| to change | where |
|---|---|
| a newer release of the project | the digests in `compose.yaml`, from its `release.json`; then `docker compose up -d --wait` |
| workers | `WORKERS=2` and `COMPOSE_PROFILES=workers` in `.env`; for none, leave both out: `WORKERS=0` counts as set |
| ports, schedules, retention | `.env`; `SCHEDULES_ENABLED=true` turns the schedules of the jobs on |
| a password of the database | also in PostgreSQL, by hand: `{INIT}` runs once, on an empty volume |
| a PostgreSQL elsewhere | run `{INIT}` there by psql; replace the service `postgres`, and its name and port in the environments |
| the page for other machines | `ssh -L`; or change the addresses in `compose.yaml`, and put a proxy with TLS before it |

Before a newer release, wait until no run is in progress (an upgrade would end it), and make a backup: an older release may not start on a
database that a newer one has used.

{idle}PostgreSQL holds the warehouse and the runs. A backup of all of it:
`docker compose exec -T --user postgres postgres pg_dumpall > all.sql`. A copy of the volume of a running server is not a backup.
"""


def write(folder: Path, made: Mapping[str, str | bytes], command: str, then: str) -> None:
    """Write the files into a new folder, and print what comes next; a folder with an `.env`, for secrets, is readable only by its owner.

    Args:
        folder: the folder.
        made: the files, by name.
        command: what was typed, without --out.
        then: what to do with them.

    Raises:
        BadUsage: the folder is not empty, or not a folder.
    """
    if console.dry:
        console.say(f"Would write {', '.join(made)} to {folder}.")
        return
    checks.make_folder(folder, command, 0o700 if ENV in made else 0o777)
    if any(folder.iterdir()):
        raise BadUsage(f"{folder} is not empty.", "What is in it may have been edited.", f"{command} --out ANOTHER_FOLDER")
    if ENV in made:
        folder.chmod(0o700)
    for name, content in made.items():
        path = folder / name
        # With Unix line ends, which a shell needs, on Windows too.
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(0o600 if name == ENV else 0o644)  # a container's account has to read the others, whatever the umask
    console.ok(f"Wrote {', '.join(made)} to {folder}{then}")
