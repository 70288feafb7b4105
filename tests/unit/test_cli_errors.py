"""The command line without a server: one line that says what to do, exit code 2, and what works all the same."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from console.cli import main
from console.cli.client import Server, connection
from console.cli.output import make_table, moment
from console.cli.up import parse_engine
from console.launch import LaunchError


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, no server named."""
    monkeypatch.chdir(tmp_path)
    for name in ("HEADRACE_ADMIN_URL", "HEADRACE_ADMIN_KEY", "HEADRACE_BASE_URL", "HEADRACE_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    code = main.run(arguments)
    out, err = capsys.readouterr()
    return code, out, err


COMMANDS = [
    ("keys", "create", "app"),
    ("keys", "list"),
    ("keys", "rotate", "k"),
    ("keys", "revoke", "k"),
    ("models", "add", "m", "--url", "http://127.0.0.1:1/v1"),
    ("models", "list"),
    ("models", "remove", "m"),
    ("deployments", "create", "m", "--url", "http://127.0.0.1:1/v1"),
    ("deployments", "list"),
    ("deployments", "stop", "d"),
    ("deployments", "logs", "d"),
    ("requests", "list"),
    ("requests", "show", "r"),
    ("trace", "r"),
    ("dlq", "list"),
    ("dlq", "show", "0:1-0"),
    ("dlq", "replay", "0:1-0"),
    ("dlq", "purge", "--all"),
    ("lag",),
    ("lag", "--consumers"),
    ("status",),
    ("drain", "rules-1-abc"),
    ("guardrails", "test", "hello"),
    ("chat", "hello"),
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_without_a_server_every_command_says_how_to_get_one(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    for more in ((), ("--json",)):
        code, out, err = said(capsys, *arguments, *more)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "`headrace up`" in err
        assert "--data DIR" in err


def test_a_server_that_does_not_answer_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_ADMIN_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("HEADRACE_ADMIN_KEY", "canary")
    code, _, err = said(capsys, "keys", "list")
    assert (code, err.count("\n")) == (2, 1)
    assert "no answer from http://127.0.0.1:9" in err
    assert "canary" not in err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("keys", "lisst"), "list"),
        (("keys", "create"), "'name'"),
        (("lag", "--frob"), "--frob"),
        (("requests", "list", "--limit", "x"), "--limit"),
        (("models", "add", "m"), "--url URL"),
        (("models", "add", "m", "--url", "http://x/v1", "--api-key-env", "NOT_SET"), "NOT_SET is not set"),
        (("dlq", "purge"), "--all"),
        (("scale", "rules", "0"), "'count'"),
        (("scale", "nonsense", "2"), "groups: authorization"),
        (("start",), "'rooms'"),
        (("start", "guard"), "unknown room: guard"),
        (("start", "rules", "--data", "nowhere"), "nothing to join"),
        (("start", "ingress", "--workers", "2"), "listens on one port"),
    ],
)
def test_a_mistyped_command_is_one_line_with_a_hint(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], hint: str
) -> None:
    code, _, err = said(capsys, *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert hint in err


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("{", "writes it anew"),
        ('{"admin_url": "ftp://x"}', "admin_url must be an http(s) address"),
        ("{}", "admin_url"),
        ("[" * 100_000, "cannot be read"),
        ('{"admin_url": "http://127.0.0.1:9", "admin_key": ""}', "set HEADRACE_ADMIN_KEY"),
    ],
)
def test_a_broken_connection_file_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str, hint: str
) -> None:
    (tmp_path / "connection.json").write_text(content)
    code, _, err = said(capsys, "keys", "list", "--data", str(tmp_path))
    assert (code, err.count("\n")) == (2, 1)
    assert hint in err


@pytest.mark.parametrize("key", ["hr_secret\n", "hr_secret\r\nx-more: 1", "hr_secrét"])
def test_a_key_with_a_line_break_is_one_line_that_does_not_show_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("HEADRACE_ADMIN_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("HEADRACE_ADMIN_KEY", key)
    code, out, err = said(capsys, "keys", "list")
    assert code == 2 and len(err.splitlines()) == 1 and "copy it again" in err and "hr_secr" not in out + err


def test_the_connection_file_of_another_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "connection.json").write_text('{"admin_url": "http://127.0.0.1:1", "admin_key": "k"}')
    assert connection(tmp_path)["admin_key"] == "k"


def test_a_key_is_not_shown_with_a_server() -> None:
    assert "canary" not in str(Server("http://x", "canary").url)


def test_version_topology_and_doctor_work_without_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "version")[0] == 0
    assert said(capsys, "topology", "check")[:2] == (0, "The topology is sound.\n")
    code, out, _ = said(capsys, "topology", "show", "--json")
    assert code == 0
    assert "requests" in [row["stream"] for row in json.loads(out)["data"]]
    code, out, _ = said(capsys, "doctor", "--json")
    found = {row["name"]: row for row in json.loads(out)["data"]}
    assert {"python", "packages", "spacy", "disk", "data folder", "settings", "port"} <= set(found)
    assert found["python"]["verdict"] == "good"


def test_every_mistake_of_a_topology_is_named_with_its_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "streams.yaml"
    file.write_text("version: 1\nfamilies: []\nstreams:\n  facts:\n    kye: x\n")
    code, _, err = said(capsys, "topology", "check", "--file", str(file))
    assert code == 2
    assert f"{file}:5:" in err
    assert len(err.splitlines()) > 2


def free(monkeypatch: pytest.MonkeyPatch, gigabytes: float) -> None:
    """A disk with so much room, however much this machine's has."""
    room = shutil.disk_usage("/")._replace(free=int(gigabytes * 1e9))
    monkeypatch.setattr("console.doctor.shutil.disk_usage", lambda _: room)


def test_doctor_names_what_must_be_mended(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(monkeypatch, 10)
    (tmp_path / "headrace.yaml").write_text("serverr: {}\nredis: {url: 'redis://127.0.0.1:9'}\n")
    loose = tmp_path / "data"
    loose.mkdir(mode=0o755)
    code, out, _ = said(capsys, "doctor", "--data", str(loose), "--json")
    bad = {row["name"]: row for row in json.loads(out)["data"] if row["verdict"] == "bad"}
    assert (code, set(bad)) == (1, {"settings", "data folder"})
    assert bad["data folder"]["remedy"] == f"chmod go-rwx {loose}"
    (tmp_path / "headrace.yaml").write_text("server: {port: 0}\nredis: {url: 'redis://127.0.0.1:9'}\n")
    code, out, _ = said(capsys, "doctor", "--json")
    bad = {row["name"]: row for row in json.loads(out)["data"] if row["verdict"] == "bad"}
    assert (code, set(bad)) == (1, {"own servers"})
    assert "DATABASE_URL" in out


def test_doctor_names_a_disk_that_is_nearly_full(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(monkeypatch, 1.5)
    code, out, _ = said(capsys, "doctor", "--data", str(tmp_path / "data"), "--json")
    [disk] = [row for row in json.loads(out)["data"] if row["name"] == "disk"]
    assert (code, disk["verdict"]) == (1, "bad")
    assert "1.5 GB free" in disk["detail"] and "make room" in disk["remedy"]


def test_topology_apply_says_when_the_server_is_away(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "headrace.yaml").write_text("redis: {url: 'redis://127.0.0.1:9'}\n")
    code, _, err = said(capsys, "topology", "apply")
    assert (code, err.count("\n")) == (2, 1)
    assert "check redis.url" in err


def test_times_are_shown_in_utc_and_never_as_zero() -> None:
    assert (moment(1_700_000_000_000), moment(0), moment(None)) == ("2023-11-14 22:13:20", "-", "-")


def test_a_run_is_shown_whole_on_a_narrow_terminal() -> None:
    run = "01a21a1a-5067-7000-86c2-829154c0cf63"
    row = {"run": run, "ended_ms": 1_700_000_000_000, "model": "a-model-with-a-long-name"}
    narrow = Console(width=70, file=io.StringIO(), force_terminal=False)
    with narrow.capture() as shown:
        narrow.print(make_table([row], (("ENDED", "ended_ms"), ("RUN", "run"), ("MODEL", "model"))))
    assert run in shown.get() and "2023-11-14" in shown.get()


def test_a_name_is_no_run_and_the_option_for_it_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = said(capsys, "route", "explain", "smollm2")
    assert (code, err.count("\n")) == (2, 1) and "--model smollm2" in err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mock", "is not NAME=URL"),
        ("a b=http://127.0.0.1:1/v1", "--engine a b=...: String should match pattern"),
        ("mock=http://me:pass@127.0.0.1:1/v1", "give the key as the endpoint's credential"),
    ],
)
def test_an_engine_that_cannot_be_called_is_refused_before_anything_starts(text: str, said: str) -> None:
    with pytest.raises(LaunchError) as caught:
        parse_engine(text)
    assert said in str(caught.value)
    assert "pass@" not in str(caught.value)


def test_help_shows_what_holds_when_an_option_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = said(capsys, "models", "add", "--help")
    assert "(server's)" in out and "(ask it)" in " ".join(out.replace("│", " ").split())
