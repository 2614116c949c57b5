"""What makes an image out of date, and what does not."""

import re
import shutil
from dataclasses import replace

import pytest

from rundbt import project_files
from switchyard import fingerprints, settings
from switchyard import project as projects
from switchyard.errors import BadConfiguration


@pytest.fixture
def copy(tmp_path, root):
    for folder in ("certs", "docker", "rundbt", "dbt_project"):
        shutil.copytree(root / folder, tmp_path / folder)
    shutil.copy(root / ".env.example", tmp_path)
    return tmp_path


def environment_of(root, image="dagster", **values) -> str:
    loaded = settings.defaults(root, {})
    loaded = replace(loaded, values={**loaded.values, **values})
    return fingerprints.image_fingerprint(loaded, image, None if image == "postgres" else projects.load(loaded, {}))


def both(root) -> tuple[str, str]:
    return environment_of(root), project_files.fingerprint(root / "dbt_project")


def test_a_copy_elsewhere_is_the_same(copy, root) -> None:
    assert both(copy) == both(root)


def test_an_edited_model_matters_to_a_baked_run_only(copy) -> None:
    environment, models = both(copy)
    with open(copy / "dbt_project" / "models" / "marts" / "dim_products_v2.sql", "a") as file:
        file.write("\n")
    assert environment_of(copy) == environment
    assert both(copy)[1] != models


def test_a_new_file_of_a_package_matters(copy) -> None:
    environment, _ = both(copy)
    package = next((copy / "dbt_project" / "packages").iterdir())
    (package / "macros" / "new.sql").write_text("")
    assert environment_of(copy) != environment


IMAGES = ("airflow", "dagster", "postgres", "prefect")


@pytest.mark.parametrize(
    ("key", "images"), [("PYTHON_IMAGE", {"dagster", "prefect"}), ("AIRFLOW_IMAGE", {"airflow"}), ("POSTGRES_IMAGE", {"postgres"})]
)
def test_another_base_image_matters_to_the_images_that_are_built_on_it(root, key, images) -> None:
    assert {name for name in IMAGES if environment_of(root, name, **{key: "mirror/base"}) != environment_of(root, name)} == images


@pytest.mark.parametrize(
    ("path", "images"),
    [
        ("rundbt/jobs.py", {"airflow", "dagster", "prefect"}),
        ("certs/another.crt", {"airflow", "dagster", "prefect"}),
        ("docker/uv/requirements.txt", {"dagster", "prefect"}),
        ("docker/postgres/Dockerfile", {"postgres"}),
        ("docker/postgres/requirements.txt", set()),
        ("docker/dagster/Dockerfile", {"dagster"}),
        ("dbt_project/packages.yml", {"airflow", "dagster", "prefect"}),
    ],
)
def test_a_file_matters_to_the_images_that_are_built_from_it(copy, path, images) -> None:
    before = {name: environment_of(copy, name) for name in IMAGES}
    with open(copy / path, "a") as file:
        file.write("\n")
    assert {name for name in IMAGES if environment_of(copy, name) != before[name]} == images


@pytest.mark.parametrize("line", ["", "KESTRA_IMAGE=\n"], ids=["no line", "no value"])
def test_a_base_image_without_a_setting_is_reported(copy, line) -> None:
    (copy / "docker" / "dagster" / "Dockerfile").write_text("ARG KESTRA_IMAGE=kestra/kestra:1.0\nFROM ${KESTRA_IMAGE}\n")
    with (copy / ".env.example").open("a") as file:
        file.write(line)
    with pytest.raises(BadConfiguration, match="KESTRA_IMAGE has no value") as caught:
        environment_of(copy)
    assert caught.value.next == "Write KESTRA_IMAGE=kestra/kestra:1.0 in .env.example."


def test_a_certificate_matters(copy) -> None:
    environment, _ = both(copy)
    (copy / "certs" / "README.md").write_text("about")
    assert environment_of(copy) == environment
    (copy / "certs" / "another.crt").write_text("one")
    assert environment_of(copy) != environment


def test_a_dbtignore_file_matters_to_a_baked_run(copy) -> None:
    before = both(copy)
    (copy / "dbt_project" / ".dbtignore").write_text("models/marts/dim_dates.sql\n")
    assert both(copy)[1] != before[1]


def test_what_dbt_writes_does_not_matter(copy) -> None:
    before = both(copy)
    for name in ("target", "logs", "dbt_packages"):
        (copy / "dbt_project" / name).mkdir(exist_ok=True)
        (copy / "dbt_project" / name / "x").write_text("")
    assert both(copy) == before


@pytest.mark.parametrize("name", ["target", "logs", "dbt_packages"])
def test_a_folder_of_models_may_have_the_name_of_a_folder_that_dbt_writes(copy, name) -> None:
    before = both(copy)
    folder = copy / "dbt_project" / "models" / name
    folder.mkdir()
    (folder / "stg_lines.sql").write_text("select 1")
    assert both(copy)[1] != before[1]
    loaded = settings.defaults(copy, {})
    assert (projects.stage(loaded, projects.load(loaded, {})) / "project" / "models" / name / "stg_lines.sql").exists()


def test_what_dbt_writes_in_a_package_does_not_matter(copy) -> None:
    before = both(copy)
    package = next((copy / "dbt_project" / "packages").iterdir())
    (package / "target").mkdir()
    (package / "target" / "manifest.json").write_text("{}")
    assert both(copy) == before


def test_a_package_in_both_of_dagsters_environments_has_one_version(root) -> None:
    """One of them is put on the other's path (docker/dagster/start.py)."""
    locks = [
        dict(re.findall(r"^([\w.-]+)==([^ ;]+)", (root / "docker" / "dagster" / name).read_text(), re.M))
        for name in ("requirements.txt", "requirements-dbt.txt")
    ]
    shared = locks[0].keys() & locks[1].keys()
    assert len(shared) > 10
    assert {name: locks[0][name] for name in shared} == {name: locks[1][name] for name in shared}
