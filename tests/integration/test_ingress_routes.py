"""Everything beside the chat route: who may see what, replays, shapes of errors."""

from __future__ import annotations

import asyncio

import openai
import orjson
import pytest
from fastapi.routing import APIRoute

from base.clock import SystemClock
from base.crypto import KeyRing, RingKey
from base.ids import SystemRandom, mint_run_id
from ingress.app import PUBLIC
from policy.api_keys import ENTROPY_BYTES, mint
from schemas.errors import Code, Failure
from tests.ingress_support import (
    Gateway,
    PlayedRun,
    chat_body,
    chunk,
    chunk_json,
    completion,
    connected,
    gateway,
    head,
    post,
    raw,
    read_chunk,
    read_head,
    until,
)


async def told(up: Gateway, script: str = "abc", **body: object) -> PlayedRun:
    """A run that has been answered."""
    before = set(up.door.runs)
    asked = asyncio.create_task(raw(up.port, post(up.token, chat_body(stream=True, **body))))
    await until(lambda: len(up.door.runs) > len(before))
    run = up.door.runs[(set(up.door.runs) - before).pop()]
    await run.data(*script)
    await run.done()
    await asked
    return run


def without_key(path: str) -> str:
    return path.replace("{model:path}", "tiny").replace("{run}", mint_run_id_text())


def mint_run_id_text() -> str:
    return mint_run_id(SystemClock(), SystemRandom(), 0)


async def test_every_route_but_the_public_ones_refuses_without_a_key() -> None:
    async with gateway() as up:
        routes = [route for route in _routes(up) if route not in {("GET", path) for path in PUBLIC}]
        assert {path for _, path in routes} >= {"/v1/chat/completions", "/v1/models", "/v1/streams/{run}"}
        for method, path in routes:
            answer = await raw(up.port, head(method, without_key(path), None, length=0))
            assert (answer.status, answer.error["code"]) == (401, "invalid_api_key"), f"{method} {path}"
        assert len(PUBLIC) <= 6


def _routes(up: Gateway) -> set[tuple[str, str]]:
    found = set(up.app.hot)

    def walk(routes: object) -> None:
        for route in routes:  # type: ignore[attr-defined]
            if isinstance(route, APIRoute) or hasattr(route, "methods"):
                found.update((method, route.path) for method in route.methods or ())
            inner = getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", None)
            if inner:
                walk(inner)

    walk(up.app.framework.routes)
    return {(method, path) for method, path in found if method != "HEAD"}


async def test_public_routes_answer_without_a_key() -> None:
    async with gateway() as up:
        for path in PUBLIC:
            asked = path.replace("{code}", "not_found")
            assert (await raw(up.port, head("GET", asked, None))).status == 200, path


async def test_the_document_shows_every_route() -> None:
    async with gateway() as up:
        answer = await raw(up.port, head("GET", "/openapi.json", None))
        paths = orjson.loads(answer.body)["paths"]
        assert {"/v1/chat/completions", "/v1/models", "/v1/models/{model}", "/v1/streams/{run}"} <= set(paths)
        assert "requestBody" in paths["/v1/chat/completions"]["post"]
        for path in ("/docs", "/redoc"):
            assert (await raw(up.port, head("GET", path, None))).status == 404


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("authorization: Bearer",),
        ("authorization: Bearer sk-not-ours",),
        ("authorization: Basic aHI6aHI=",),
        ("authorization: Bearer hr_0000000000000000_" + "0" * 48 + "_" + "0" * 24,),
        ("x-api-key: \xff\xfe",),
    ],
)
async def test_a_key_that_we_never_minted_is_refused_before_the_body_is_read(lines: tuple[str, ...]) -> None:
    async with gateway() as up:
        answer = await raw(up.port, head("POST", "/v1/chat/completions", None, *lines, length=1_000_000))
        assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
        assert set(answer.error) == {"message", "type", "param", "code", "doc_url"}
        assert "x-request-id" in answer.headers


async def test_a_key_of_another_house_is_refused() -> None:
    token = mint(SystemRandom().bytes(ENTROPY_BYTES), KeyRing([RingKey("k1", b"2" * 32)])).token
    async with gateway() as up:
        assert (await raw(up.port, head("GET", "/v1/models", token))).status == 401


async def test_models_are_those_that_the_key_may_use() -> None:
    async with gateway() as up:
        token = await up.other_key(models=("org/*",))
        async with up.client() as all_of_them, up.client(token) as some:
            assert [model.id async for model in all_of_them.models.list()] == ["org/big:1", "tiny"]
            assert [model.id async for model in some.models.list()] == ["org/big:1"]
            assert (await some.models.retrieve("org/big:1")).id == "org/big:1"
            for name in ("tiny", "nothing/like/this"):
                with pytest.raises(openai.NotFoundError) as caught:
                    await some.models.retrieve(name)
                assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


async def test_a_revoked_key_and_one_without_the_scope_see_no_models() -> None:
    async with gateway() as up:
        revoked, admin = await up.other_key(revoked_ms=1), await up.other_key(scopes=("admin",))
        assert (await raw(up.port, head("GET", "/v1/models", revoked))).status == 401
        answer = await raw(up.port, head("GET", "/v1/models", admin))
        assert (answer.status, answer.error["type"]) == (403, "permission")


async def test_unknown_paths_and_methods_fail_in_the_same_shape() -> None:
    async with gateway() as up:
        for method, path, status, code in (
            ("GET", "/v1/nothing", 404, "not_found"),
            ("POST", "/v1/images", 404, "not_found"),
            ("POST", "/v1/chat/completions/", 404, "not_found"),
            ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
            ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ):
            answer = await raw(up.port, head(method, path, up.token, length=0))
            assert (answer.status, answer.error["code"]) == (status, code), path
            assert set(answer.error) == {"message", "type", "param", "code", "doc_url"}
            assert "x-request-id" in answer.headers


async def test_a_bug_in_a_cold_route_is_an_internal_error_in_the_same_shape() -> None:
    async with gateway() as up:
        up.keys.find = None  # type: ignore[assignment,method-assign]
        answer = await raw(up.port, head("GET", "/v1/models", up.token))
        assert (answer.status, answer.error["code"]) == (500, "internal_error")


@pytest.mark.parametrize("after", [0, 1, 2, 3, 4])
async def test_an_ended_run_can_be_read_again_from_any_event(after: int) -> None:
    async with gateway() as up:
        run = await told(up)
        answer = await raw(up.port, head("GET", f"/v1/streams/{run.run}?after={after}", up.token))
        whole = [chunk_json(text) for text in "abc"] + [chunk_json("", "stop"), b"[DONE]"]
        wanted = b"".join(b"id: %d\ndata: %b\n\n" % (n, data) for n, data in enumerate(whole, 1) if n > after)
        assert (answer.status, answer.body, answer.clean) == (200, wanted, True)


async def test_reading_past_the_end_is_an_empty_stream_that_ends() -> None:
    async with gateway() as up:
        run = await told(up)
        answer = await raw(up.port, head("GET", f"/v1/streams/{run.run}?after=5", up.token))
        assert (answer.status, answer.body, answer.clean) == (200, b"", True)


async def test_the_browsers_last_event_id_works_like_after() -> None:
    async with gateway() as up:
        run = await told(up)
        answer = await raw(up.port, head("GET", f"/v1/streams/{run.run}", up.token, "last-event-id: 4"))
        assert answer.body == b"id: 5\ndata: [DONE]\n\n"


async def test_a_live_run_is_followed_and_pings_are_no_blocks_of_their_own() -> None:
    async with gateway(keep_alive=1) as up:
        asked = asyncio.create_task(raw(up.port, post(up.token, chat_body(stream=True))))
        run = await up.door.first()
        await run.data("a", "b")
        async with connected(up.port) as (reader, writer):
            writer.write(head("GET", f"/v1/streams/{run.run}?after=1", up.token))
            await read_head(reader)
            assert await read_chunk(reader) == b"id: 2\n" + chunk("b")
            assert await read_chunk(reader) == b": keep-alive\n"
            await run.fail(Failure(code=Code.upstream_interrupted, message="broke"))
            piece = await read_chunk(reader)
            assert piece.startswith(b"id: 3\ndata: ")
            assert orjson.loads(piece[12:])["error"]["code"] == "upstream_interrupted"
            assert await read_chunk(reader) == b""
        await asked


async def test_a_unary_answer_can_be_read_again_as_one_event() -> None:
    async def script(run: PlayedRun) -> None:
        await run.answer(completion("Hello"))

    async with gateway(script) as up:
        run = (await raw(up.port, post(up.token, chat_body()))).headers["x-headrace-run"]
        answer = await raw(up.port, head("GET", f"/v1/streams/{run}", up.token))
        assert answer.body == b"id: 1\ndata: " + completion("Hello") + b"\n\n"


async def test_another_tenants_run_does_not_exist() -> None:
    async with gateway() as up:
        run = await told(up)
        run.tenant = "acme"
        colleague, rival = await up.other_key(tenant="acme"), await up.other_key(tenant="rival")
        assert (await raw(up.port, head("GET", f"/v1/streams/{run.run}", colleague))).status == 200
        hidden = await raw(up.port, head("GET", f"/v1/streams/{run.run}", rival))
        missing = await raw(up.port, head("GET", f"/v1/streams/{mint_run_id_text()}", rival))
        assert (hidden.status, hidden.body) == (404, missing.body)
        assert (await raw(up.port, head("GET", "/v1/streams/not-a-run", rival))).status == 404


@pytest.mark.parametrize("after", ["-1", "x", "1.5"])
async def test_a_wrong_parameter_is_a_400_with_its_name_and_only_with_a_key(after: str) -> None:
    async with gateway() as up:
        path = f"/v1/streams/{mint_run_id_text()}?after={after}"
        answer = await raw(up.port, head("GET", path, up.token))
        assert (answer.status, answer.error["param"], answer.error["code"]) == (400, "after", "invalid_value")
        assert (await raw(up.port, head("GET", path, None))).status == 401


@pytest.mark.parametrize("code", [*Code, "no_engine.md"])
async def test_every_code_has_a_page_that_is_served_as_markdown_and_to_browsers_as_text(code: str) -> None:
    async with gateway() as up:
        answer = await raw(up.port, head("GET", f"/docs/errors/{code}", None))
        assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
        assert answer.body.decode().startswith(f"# {code.removesuffix('.md')}\n")
        shown = await raw(up.port, head("GET", f"/docs/errors/{code}", None, "accept: text/html,*/*;q=0.8"))
        assert (shown.headers["content-type"], shown.body) == ("text/plain; charset=utf-8", answer.body)


@pytest.mark.parametrize("name", ["nothing", "..%2f..%2fstreams", "NOT_FOUND", "__init__"])
async def test_no_other_page_is_served(name: str) -> None:
    async with gateway() as up:
        answer = await raw(up.port, head("GET", f"/docs/errors/{name}", None))
        assert (answer.status, answer.error["code"]) == (404, "not_found")


async def test_an_error_names_a_page_that_is_there() -> None:
    async with gateway() as up:
        error = (await raw(up.port, head("GET", "/v1/models", None))).error
        page = await raw(up.port, head("GET", str(error["doc_url"]), None))
        assert page.body.startswith(b"# invalid_api_key\n")


async def test_the_streams_are_described_without_a_key() -> None:
    async with gateway() as up:
        described = orjson.loads((await raw(up.port, head("GET", "/asyncapi.json", None))).body)
        assert described["asyncapi"] == "3.0.0" and "requests" in described["channels"]


async def test_a_405_names_what_the_path_has() -> None:
    async with gateway() as up:
        answer = await raw(up.port, head("DELETE", "/v1/models", up.token))
        assert (answer.status, answer.headers["allow"]) == (405, "GET")


async def test_readiness_names_what_is_wrong() -> None:
    async def away() -> str:
        return "Redis is not connected"

    async with gateway() as up:
        assert (await raw(up.port, head("GET", "/readyz", None))).status == 200
        up.parts.health.add("redis", away)
        answer = await raw(up.port, head("GET", "/readyz", None))
        assert answer.status == 503
        assert orjson.loads(answer.body)["checks"] == {"redis": "Redis is not connected"}


async def test_metrics_can_be_kept_off_the_public_port() -> None:
    async with gateway(expose_metrics=False) as up:
        assert (await raw(up.port, head("GET", "/metrics", None))).status == 404
    async with gateway() as up:
        await raw(up.port, post(None, chat_body()))
        assert b"headrace_requests_total" in (await raw(up.port, head("GET", "/metrics", None))).body
