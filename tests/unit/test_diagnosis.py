"""The output of a build whose base image cannot be pulled, and the error that is made from it."""

import pytest

from switchyard import diagnosis

BASES = {"POSTGRES_IMAGE": "postgres:16-bookworm", "PYTHON_IMAGE": "python:3.12-slim-bookworm"}
METADATA = (
    "ERROR: failed to solve: python:3.12-slim-bookworm: failed to resolve source metadata for docker.io/library/python:3.12-slim-bookworm: "
)
HEAD = METADATA + 'failed to do request: Head "https://registry-1.docker.io/v2/library/python/manifests/3.12-slim-bookworm": '


@pytest.mark.parametrize(
    ("output", "why"),
    [
        pytest.param(HEAD + "dial tcp: lookup registry-1.docker.io on 127.0.0.53:53: no such host", "no DNS", id="offline"),
        pytest.param(HEAD + "dial tcp 127.0.0.1:443: connect: connection refused", "cannot be reached", id="nobody there"),
        pytest.param(HEAD + "dial tcp 10.0.0.1:443: i/o timeout", "cannot be reached", id="a firewall that drops"),
        pytest.param(HEAD + "proxyconnect tcp: dial tcp 10.0.0.1:3128: connect: connection refused", "engine's proxy", id="a proxy"),
        pytest.param(
            HEAD + "tls: failed to verify certificate: x509: certificate signed by unknown authority",
            "/etc/docker/certs.d",
            id="a company's CA",
        ),
        pytest.param(METADATA + "unexpected status from HEAD request to https://registry/v2: 403 Forbidden", "refuses", id="blocked"),
        pytest.param(
            METADATA + "429 Too Many Requests - Server message: toomanyrequests: You have reached your pull rate limit.",
            "docker login",
            id="rate limit",
        ),
        pytest.param(
            "ERROR: failed to solve: python:3.12-slim-bookworm: pull access denied, repository does not exist or may require authorization:"
            " server message: insufficient_scope: authorization failed",
            "refuses",
            id="denied",
        ),
        pytest.param(
            "failed to solve: python:3.12-slim-bookworm: docker.io/library/python:3.12-slim-bookworm: not found",
            "no such image",
            id="no such tag",
        ),
    ],
)
def test_a_base_image_that_cannot_be_pulled(output, why) -> None:
    error = diagnosis.image_failed("switchyard-dagster:local", f"#3 ERROR\n------\n{output}", BASES)
    assert error.code == 16
    assert "python:3.12-slim-bookworm" in error.what
    assert why in error.why
    assert "PYTHON_IMAGE in .env" in error.next
    assert "invoke up --runtime native" in error.next


@pytest.mark.parametrize(
    "output",
    [
        pytest.param("ERROR: Could not find a version that satisfies the requirement x\nfailed to solve: exit code: 1", id="pip"),
        pytest.param("#3 FROM docker.io/library/python:3.12-slim-bookworm\nERROR: failed to solve: process exit code: 2", id="a step"),
        pytest.param("ERROR: failed to solve: lstat /docker/x: no such file or directory", id="a missing file"),
    ],
)
def test_any_other_failure_is_a_failed_build(output) -> None:
    error = diagnosis.image_failed("switchyard-dagster:local", output, BASES)
    assert (error.code, error.why, error.next) == (6, output, "invoke build")


@pytest.mark.parametrize(
    "output",
    [
        pytest.param("error: invalid peer certificate: UnknownIssuer", id="uv"),
        pytest.param(
            "SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", id="pip, requests"
        ),
        pytest.param("curl: (60) SSL certificate problem: unable to get local issuer certificate", id="curl"),
    ],
)
def test_a_step_without_the_certificate_points_to_the_folder(output) -> None:
    error = diagnosis.image_failed("switchyard-dagster:local", output, BASES)
    assert error.code == 6
    assert "certs/" in error.next


@pytest.mark.parametrize(
    ("message", "help_"),
    [
        ('seed raw: Database Error in seed raw (seeds/raw.csv)\n  column "x" of relation "raw" does not exist', "--full-refresh"),
        ("model a: canceling statement due to lock timeout", "LOCK_TIMEOUT"),
        ("model a: FATAL: sorry, too many clients already", "connection"),
        ("model a: could not extend file: No space left on device", "invoke doctor"),
        ("[Errno 28] No space left on device: '/opt/dbt/target/project/models/a.sql'", "/opt/dbt/target:size="),
    ],
)
def test_help_is_shown_if_the_message_has_none(message, help_) -> None:
    assert [help_ in line for line in diagnosis.help_for([message])] == [True]
    assert diagnosis.help_for(['model a: column "x" does not exist']) == []


def test_a_start_with_a_full_target_folder_does_not_blame_the_disk() -> None:
    why = "OSError: [Errno 28] No space left on device: '/opt/dbt/project/a.sql' -> '/opt/dbt/target/project/a.sql'"
    error = diagnosis.start_failure("Dagster", why)
    assert (error.code, "disk" in error.what) == (17, False)
    assert "/opt/dbt/target:size=" in error.next


def test_the_last_lines_of_a_service_are_shown_or_reported_missing(tmp_path) -> None:
    assert diagnosis.last_lines("api exited", "\x1b[31mno\x1b[0m\n\n", tmp_path / "api.log") == [
        "api exited; its last lines:",
        "  no",
        f"  (more of them: {tmp_path / 'api.log'})",
    ]
    assert diagnosis.last_lines("api exited", "\n", tmp_path) == ["api exited; it has printed nothing."]
