"""The check for secrets that others could read, which test_switch.py uses, finds one; and a wrong file in `certs/` is reported."""


def test_a_secret_that_others_could_read_is_found(stack) -> None:
    stack.on("dagster")
    assert stack.exposed() == []
    stray = stack.folder / ".stack" / "native" / "logs" / "stray.log"
    stray.write_text(f"signing in with {stack.secrets()['DBT_PASSWORD']}")
    try:
        assert stack.exposed() == [str(stray)]
    finally:
        stray.unlink()


def test_a_file_in_certs_that_is_not_a_certificate_is_reported(stack) -> None:
    stray = stack.folder / "certs" / "stray.crt"
    stray.write_text("not one\n")
    try:
        assert "certs/stray.crt" in stack.invoke("up", code=5).stderr
    finally:
        stray.unlink()
