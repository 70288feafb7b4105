"""compose.yaml and the image: valid by the Compose Specification's schema, and every word in them exists here."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import Any

import jsonschema_rs
import pytest
import yaml

from base.health import Health
from base.version import version
from bench import mock_engine
from console.config import Settings
from console.stack import ROOMS
from tests.deploy_support import DEPLOY, ROOT, cli_error, compose, stage_lines

SERVICES: dict[str, dict[str, Any]] = compose()["services"]
TEXT = (ROOT / "compose.yaml").read_text()
FIRST_HEALTH_PORT = 9090


def of_image(image: str) -> dict[str, dict[str, Any]]:
    return {name: service for name, service in SERVICES.items() if service["image"].startswith(f"{image}:")}


OURS = of_image("headrace")


def of_profile(profile: str) -> dict[str, dict[str, Any]]:
    return {name: service for name, service in OURS.items() if profile in service["profiles"]}


def test_the_file_is_valid_by_the_schema_of_the_specification() -> None:
    schema = json.loads((ROOT / "tests/vendor/compose-spec.json").read_text())
    found = jsonschema_rs.Draft202012Validator(schema).iter_errors(compose())
    assert [f"{'.'.join(map(str, error.instance_path))}: {error.message}" for error in found] == []


def test_every_service_has_a_profile_and_every_profile_of_the_docs_is_there() -> None:
    assert all(service["profiles"] for service in SERVICES.values())
    assert {profile for service in SERVICES.values() for profile in service["profiles"]} == {
        "unified", "split", "observability", "demo",
    }  # fmt: skip


@pytest.mark.parametrize("name", OURS)
def test_every_command_is_one_of_the_command_line(name: str) -> None:
    assert cli_error(OURS[name]["command"]) == ""


def test_a_command_that_does_not_exist_is_noticed() -> None:
    assert cli_error(["nonsense"])
    assert cli_error(["models", "apply", "--nonsense"])


def test_split_has_a_service_for_every_room() -> None:
    started = {name: tuple(service["command"]) for name, service in of_profile("split").items() if name != "init"}
    assert started == {room: ("start", room) for room in ROOMS}


def test_the_rooms_that_scale_can_be_scaled() -> None:
    scaled = {name for name, service in of_profile("split").items() if "${" in str(service.get("deploy", ""))}
    assert scaled == set(ROOMS) - {"console"}
    assert all(f"${{{name.upper()}_REPLICAS:-1}}" in TEXT for name in scaled)


def test_each_health_check_asks_the_port_of_its_room() -> None:
    ports = {name: service["healthcheck"]["test"] for name, service in of_profile("split").items() if name != "init"}
    assert ports == {room: ["CMD", "healthy", str(FIRST_HEALTH_PORT + place)] for place, room in enumerate(ROOMS)}
    assert OURS["headrace"]["healthcheck"]["test"] == ["CMD", "healthy", str(FIRST_HEALTH_PORT)]


async def test_the_program_of_the_health_check_asks_a_process_of_ours() -> None:
    health = Health("router")
    port = await health.start()
    try:
        assert await healthy(port) == (0, "")
        health.draining = True
        assert (await healthy(port))[0] == 1
        assert "this process is going away" in (await healthy(port))[1]
    finally:
        await health.stop()
    assert (await healthy(port))[0] == 1


async def healthy(port: int) -> tuple[int | None, str]:
    """Exit code and words of deploy/healthy."""
    words = [sys.executable, str(DEPLOY / "healthy"), str(port)]
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    return process.returncode, said.decode()


def test_every_setting_in_the_image_and_the_services_exists() -> None:
    words = [word for line in stage_lines("runtime") if line[0] == "ENV" for word in line[1:]]
    image = dict(word.split("=", 1) for word in words)
    services = {key: value for service in OURS.values() for key, value in service["environment"].items()}
    given = {key: value for key, value in (image | services).items() if key.startswith("HEADRACE__")}
    tree: dict[str, Any] = {}
    for key, value in given.items():
        section, name = key.removeprefix("HEADRACE__").lower().split("__")
        tree.setdefault(section, {})[name] = value
    settings = Settings.model_validate(tree)
    assert (settings.metrics.port, settings.metrics.host) == (FIRST_HEALTH_PORT, "0.0.0.0")


def test_stopping_leaves_time_for_open_answers() -> None:
    longest = Settings().server.drain_limit
    assert all(int(service["stop_grace_period"].removesuffix("s")) > longest + 10 for service in OURS.values())
    assert ["STOPSIGNAL", "SIGTERM"] in stage_lines("runtime")


def test_nothing_but_the_door_is_published_beyond_this_machine() -> None:
    open_ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert all(port.startswith(("127.0.0.1:", "${HEADRACE_BIND:-127.0.0.1}:")) for port in open_ports)


def test_no_secret_has_a_default() -> None:
    defaults = dict(re.findall(r"\$\{([A-Z_]*(?:PASSWORD|KEY)[A-Z_]*)(:?[-?][^}]*)\}", TEXT))
    # Grafana listens on this machine alone
    assert [name for name, rest in defaults.items() if not rest.startswith(":?")] == ["GRAFANA_PASSWORD"]


def test_every_variable_can_be_filled_in() -> None:
    sample = (DEPLOY / "compose.env").read_text()
    offered = dict(re.findall(r"^([A-Z_]+)=(.*)$", sample, re.MULTILINE))
    asked = dict(re.findall(r"\$\{([A-Z_]+):[?-]([^}]*)\}", TEXT))
    assert set(offered) == set(asked)
    wanted = {name: "" if value == "set it in .env" else value for name, value in asked.items()}
    assert offered == wanted


def test_our_containers_are_fenced_in() -> None:
    for service in (*OURS.values(), *of_image("headrace-demo-engine").values()):
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])


def test_images_are_pinned_and_ours_has_this_version() -> None:
    images = [service["image"] for service in SERVICES.values()]
    froms = re.findall(r"^FROM (\S+:\S+)", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert not [image for image in [*images, *froms] if re.search(r":latest$|^[^:]*$", image)]
    assert all(image.endswith(f":${{HEADRACE_VERSION:-{version()}}}") for image in images if "headrace" in image)


def test_the_stages_that_services_build_are_in_the_dockerfile() -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE))
    assert {service["build"]["target"] for service in SERVICES.values() if "build" in service} <= stages


def test_everything_the_image_copies_is_there_and_sent_to_the_builder() -> None:
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")]
    copied = [
        word
        for stage in ("build", "runtime", "demo-engine")
        for line in stage_lines(stage)
        if line[0] == "COPY" and not line[1].startswith("--from")
        for word in line[1:-1]
    ]
    assert [word for word in copied if not (ROOT / word).exists()] == []
    assert [word for word in copied if not any(word == top or word.startswith(f"{top}/") for top in sent)] == []


def test_the_image_copies_every_package_of_the_wheel() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    (packages,) = re.findall(r"targets\.wheel\]\npackages = \[(.*?)\]", project, re.DOTALL)
    copied = {word for line in stage_lines("build") if line[0] == "COPY" for word in line[1:-1]}
    assert set(re.findall(r'"(\w+)"', packages)) <= copied


def test_the_image_does_not_run_as_root() -> None:
    users = [words[1] for words in stage_lines("runtime") if words[0] == "USER"]
    assert users == ["10001:10001"]


def test_programs_are_started_in_exec_form() -> None:
    for stage in ("runtime", "demo-engine"):
        starts = [words for words in stage_lines(stage) if words[0] in ("CMD", "ENTRYPOINT")]
        assert all(words[1].startswith("[") for words in starts)


@pytest.mark.parametrize("name", sorted(of_image("headrace-demo-engine")))
def test_the_demo_engine_takes_its_arguments(name: str) -> None:
    options = mock_engine.parser().parse_args(SERVICES[name]["command"])
    assert options.host == "0.0.0.0"


def test_the_model_of_the_demo_stands_on_both_engines() -> None:
    entries = Settings.model_validate(yaml.safe_load((DEPLOY / "demo/headrace.yaml").read_text())).models
    assert {re.sub(r"^http://|:9100/v1$", "", str(entry.url)) for entry in entries} == set(
        of_image("headrace-demo-engine")
    )
    assert {entry.pool for entry in entries} == {"demo"}
