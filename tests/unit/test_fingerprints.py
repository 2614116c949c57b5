"""What makes an image out of date, and what does not."""

import shutil

import pytest

from stack import fingerprints

VALUES = {"POSTGRES_IMAGE": "p", "PYTHON_IMAGE": "y", "AIRFLOW_IMAGE": "a"}


@pytest.fixture
def copy(tmp_path, root):
    for folder in ("docker", "dbt_project"):
        shutil.copytree(root / folder, tmp_path / folder)
    return tmp_path


def both(root) -> tuple[str, str]:
    return fingerprints.environment(root, "dagster", VALUES), fingerprints.dbt_project(root)


def test_a_copy_elsewhere_is_the_same(copy, root) -> None:
    assert both(copy) == both(root)


def test_an_edited_model_matters_to_a_baked_run_only(copy) -> None:
    environment, project = both(copy)
    with open(copy / "dbt_project" / "models" / "marts" / "dim_products.sql", "a") as file:
        file.write("\n")
    assert fingerprints.environment(copy, "dagster", VALUES) == environment
    assert fingerprints.dbt_project(copy) != project


@pytest.mark.parametrize(
    "path", ["docker/dagster/Dockerfile", "docker/common/switchyard/jobs.py", "dbt_project/packages.yml", "dbt_project/packages/new.sql"]
)
def test_the_environments_files_matter(copy, path) -> None:
    environment, _ = both(copy)
    if path.endswith("new.sql"):
        package = next((copy / "dbt_project" / "packages").iterdir())
        (package / "macros" / "new.sql").write_text("")
    else:
        with open(copy / path, "a") as file:
            file.write("\n")
    assert fingerprints.environment(copy, "dagster", VALUES) != environment


def test_another_base_image_matters(copy) -> None:
    environment, _ = both(copy)
    assert fingerprints.environment(copy, "dagster", {**VALUES, "PYTHON_IMAGE": "mirror/python"}) != environment


def test_a_certificate_matters(copy) -> None:
    environment, _ = both(copy)
    (copy / "certs").mkdir()
    (copy / "certs" / "README.md").write_text("about")
    assert fingerprints.environment(copy, "dagster", VALUES) == environment
    (copy / "certs" / "company.crt").write_text("one")
    assert fingerprints.environment(copy, "dagster", VALUES) != environment


def test_what_dbt_writes_does_not_matter(copy) -> None:
    before = both(copy)
    for name in ("target", "logs", "dbt_packages"):
        (copy / "dbt_project" / name).mkdir(exist_ok=True)
        (copy / "dbt_project" / name / "x").write_text("")
    assert both(copy) == before
