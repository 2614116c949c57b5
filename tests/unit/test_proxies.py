"""In the containers, requests to the stack's own services use no proxy, and all others do."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from rundbt.sitecustomize import NEIGHBOURS, exceptions

PROXY = "http://proxy.example:3128"


@pytest.mark.parametrize("environ", [{}, {"no_proxy": "x"}, {"HTTP_PROXY": PROXY, "NO_PROXY": "*"}], ids=["none", "only exceptions", "all"])
def test_nothing_changes_where_no_request_would_use_a_proxy(environ) -> None:
    assert exceptions(environ) == {}


def test_the_users_exceptions_stay_and_nothing_is_added_twice() -> None:
    own = {"HTTPS_PROXY": PROXY, "NO_PROXY": ".corp.example, localhost"}
    first = exceptions(own)
    assert set(first) == {"no_proxy", "NO_PROXY"}
    assert set(first.values()) == {",".join([".corp.example", "localhost", *NEIGHBOURS[1:]])}
    assert exceptions({**own, **first}) == first
    assert exceptions({"http_proxy": PROXY, "no_proxy": "a", "NO_PROXY": "b"})["NO_PROXY"].startswith("b,")


def test_every_host_in_the_compose_files_is_an_exception(root) -> None:
    found = set()
    for file in (root / "compose").glob("*.yaml"):
        found |= set(re.findall(r"http://([\w.-]+):|_CODE_HOST: ([\w-]+)", file.read_text(encoding="utf-8")))
    assert {name for pair in found for name in pair if name} <= {*NEIGHBOURS}


@pytest.mark.skipif(os.name == "nt", reason="as in the images, which are of Linux")
def test_python_knows_the_exceptions_from_its_start(root, tmp_path) -> None:
    shutil.copy(root / "rundbt" / "sitecustomize.py", tmp_path)
    program = (
        "import json, urllib.request as r;"
        "print(json.dumps([bool(r.proxy_bypass(name)) for name in ('prefect-server', 'airflow-api:8080', 'hooks.example')]))"
    )
    env = {"PYTHONPATH": str(tmp_path), "http_proxy": PROXY, "no_proxy": ".corp.example", "PATH": os.environ["PATH"]}
    assert json.loads(subprocess.check_output([sys.executable, "-c", program], env=env)) == [True, True, False]


@pytest.mark.parametrize("name", ["airflow", "dagster", "prefect"])
def test_each_image_has_the_file_where_python_finds_it(root, name) -> None:
    text = (root / "docker" / name / "Dockerfile").read_text(encoding="utf-8")
    assert "COPY --chmod=0755 rundbt/sitecustomize.py /opt/switchyard/lib/\n" in text
    assert re.search(r"PYTHONPATH=/opt/switchyard/lib\b", text)
