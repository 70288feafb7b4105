"""base/settings.py and console/config.py: one tree, every mistake at once, no secret shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, SecretStr

from base.settings import Section, SettingsError, load, shown
from console import config

CANARY = "canary-9f8e7d"


class Server(Section):
    host: str = "127.0.0.1"
    port: int = Field(80, ge=1)
    tags: tuple[str, ...] = ()
    key: SecretStr = SecretStr("")


class Model(Section):
    name: str
    url: str = ""


class Tree(Section):
    server: Server = Server()
    models: tuple[Model, ...] = ()
    partitions: int = 1


def write(folder: Path, text: str) -> Path:
    file = folder / "headrace.yaml"
    file.write_text(text)
    return file


def mistakes(folder: Path, text: str, **more: object) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(Tree, file=write(folder, text), **more)  # type: ignore[arg-type]
    return [str(issue).replace(f"{folder}/", "") for issue in caught.value.issues]


def test_nothing_given_means_defaults() -> None:
    assert load(Tree) == Tree()


def test_each_source_outranks_the_one_below_it(tmp_path: Path) -> None:
    file = write(tmp_path, "server: {host: file, port: 1}\npartitions: 1\n")
    dotenv = tmp_path / ".env"
    dotenv.write_text("HEADRACE__SERVER__HOST=dotenv\nHEADRACE__SERVER__PORT=2\n")
    environ = {"HEADRACE__SERVER__PORT": "3", "HEADRACE__PARTITIONS": "3"}
    found = load(Tree, file=file, dotenv=dotenv, environ=environ, overrides={"partitions": 4, "server.host": None})
    assert (found.server.host, found.server.port, found.partitions) == ("dotenv", 3, 4)


def test_every_mistake_is_named_at_once_with_its_line(tmp_path: Path) -> None:
    text = (
        "server:\n  prot: 3\n  port: abc\n  key: ${NOT_THERE}\nmodels:\n  - url: x\n  - name: y\n    url: file:nope\n"
    )
    found = mistakes(tmp_path, text, environ={"HEADRACE__PARTITIONS": "many"})
    assert len(found) == 6
    assert "headrace.yaml:2: server.prot: unknown key; did you mean 'port'?" in found
    assert "headrace.yaml:4: server.key: environment variable NOT_THERE is not set" in found
    assert "headrace.yaml:6: models.0.name: is required and not set" in found
    assert "headrace.yaml:8: models.1.url: file:nope cannot be read: No such file or directory" in found
    assert any(line.startswith("headrace.yaml:3: server.port: ") for line in found)
    assert any(line.startswith("environment variable HEADRACE__PARTITIONS: partitions: ") for line in found)


def test_an_unknown_environment_variable_of_ours_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"environment variable HEADRACE__SERVER__PROT: server\.prot: unknown key"):
        load(Tree, environ={"HEADRACE__SERVER__PROT": "1"})


def test_variables_of_others_are_left_alone() -> None:
    assert load(Tree, environ={"PATH": "/bin", "HEADRACE_ADMIN_URL": "x"}) == Tree()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1\n", "is not YAML"),
        ("- 1\n", "must be a mapping of sections"),
        ("server: {port: 1}\nserver: {port: 2}\n", "headrace.yaml:2: server: is written twice"),
        ("server: &x\n  tags: [*x]\n", "is"),
        ("server:\n  host: 2024-99-99\n", "headrace.yaml:2: server.host: is not a value that YAML knows"),
        ("server:\n  host: !mine x\n", "headrace.yaml:2: server.host: is not a value that YAML knows"),
    ],
)
def test_a_file_that_is_no_settings_file_says_why(tmp_path: Path, text: str, said: str) -> None:
    assert said in "\n".join(mistakes(tmp_path, text))


def test_a_missing_file_is_one_mistake(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        load(Tree, file=tmp_path / "headrace.yaml")


def test_a_broken_line_of_dotenv_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# fine\nA=1\nno assignment\n")
    with pytest.raises(SettingsError, match=r"\.env:3: is not NAME=value"):
        load(Tree, dotenv=tmp_path / ".env")


def test_a_dotenv_that_is_no_text_is_a_mistake_and_not_a_traceback(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"A=\xff\n")
    with pytest.raises(SettingsError, match=r"\.env: cannot be read: not UTF-8"):
        load(Tree, dotenv=tmp_path / ".env")


def test_references_take_variables_and_files(tmp_path: Path) -> None:
    (tmp_path / "key.txt").write_text(f"{CANARY}\n")
    file = write(tmp_path, "server: {host: '${NAME}.example', key: 'file:key.txt', port: '${PORT}'}\n")
    (tmp_path / ".env").write_text("export NAME='from-dotenv'\nPORT=1\n")
    found = load(Tree, file=file, dotenv=tmp_path / ".env", environ={"PORT": "7"})
    assert (found.server.host, found.server.port) == ("from-dotenv.example", 7)
    assert found.server.key.get_secret_value() == CANARY


def test_lists_in_variables_are_written_as_yaml_but_texts_stay_texts() -> None:
    environ = {
        "HEADRACE__SERVER__TAGS": "[a, b]",
        "HEADRACE__SERVER__KEY": "[not a list",
        "HEADRACE__SERVER__HOST": "{x}",
    }
    found = load(Tree, environ=environ)
    assert found.server.tags == ("a", "b")
    assert (found.server.key.get_secret_value(), found.server.host) == ("[not a list", "{x}")


def test_a_stronger_source_replaces_a_whole_list(tmp_path: Path) -> None:
    file = write(tmp_path, "models: [{name: a}, {name: b}]\n")
    environ = {"HEADRACE__MODELS": '[{"name": "c"}]'}
    assert [model.name for model in load(Tree, file=file, environ=environ).models] == ["c"]


def test_secrets_are_never_printed(tmp_path: Path) -> None:
    file = write(tmp_path, f"server: {{key: {CANARY}}}\n")
    found = load(Tree, file=file)
    assert CANARY not in repr(found) + str(shown(found)) + found.model_dump_json()
    wrong = mistakes(tmp_path, f"server: {{port: {CANARY}, key: [{CANARY}], {CANARY[:6]}: 1}}\n")
    assert CANARY not in "\n".join(wrong)


def test_settings_cannot_be_changed() -> None:
    server: Any = load(Tree).server
    with pytest.raises(ValueError, match="frozen"):
        server.port = 1


# --- the whole house ------------------------------------------------------------------------------------------------


def test_the_whole_tree_has_its_defaults(tmp_path: Path) -> None:
    found = config.load(folder=tmp_path, environ={})
    assert found.partitions == 1
    assert found.secrets.keyring.get_secret_value() == ""


def test_headrace_yaml_of_the_folder_is_found(tmp_path: Path) -> None:
    write(tmp_path, "partitions: 4\nmodels:\n  - {name: m, url: 'http://127.0.0.1:1/v1'}\n")
    found = config.load(folder=tmp_path, environ={})
    assert (found.partitions, found.models[0].id, found.models[0].target) == (4, "m", "external")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models: [{name: m}]", "give either url or command"),
        ("models: [{name: m, url: 'http://a'}, {name: m, url: 'http://b'}]", "m is deployed twice"),
        ("processes: [[ingress]]", "room without a process"),
        ("models:\n  - {name: m, url: 'ftp://a'}", "headrace.yaml:2: models.0: the URL must be http(s)://"),
        ("models:\n  - {name: m, url: 'http://me:pass@a'}", "give the key as the endpoint's credential"),
        ("models:\n  - {name: m, url: 'http://a', api_key: x}", "a credential is sent over https only"),
        ("serverr: {}", "did you mean 'server'?"),
        ("provisioner: {interval_s: 0}", "headrace.yaml:1: provisioner.interval_s"),
    ],
)
def test_mistakes_across_sections_are_found(tmp_path: Path, text: str, said: str) -> None:
    write(tmp_path, f"{text}\n")
    with pytest.raises(SettingsError) as caught:
        config.load(folder=tmp_path, environ={})
    assert said in str(caught.value)


def test_every_setting_of_the_house_has_a_description() -> None:
    def walk(model: type[Section], path: str) -> list[str]:
        bare = []
        for name, field in model.model_fields.items():
            bare += [] if field.description else [f"{path}{name}"]
            inner = field.annotation
            if isinstance(inner, type) and hasattr(inner, "model_fields"):
                bare += walk(inner, f"{path}{name}.")
        return bare

    assert walk(config.Settings, "") == []
