"""The OpenAI-compatible client against a real server on this machine: down, slow, failing, babbling, good."""

import logging
import socket
from typing import Any

import pytest
from pydantic import SecretStr

from saeops.adapters.llm import InProcess, OpenAiCompatible, ScriptedLlm
from saeops.adapters.models import TransformersModel
from saeops.errors import EndpointUnavailable
from saeops.labelling.config import LlmLabeller
from saeops.ports import Llm
from tests.endpoint import Reply, endpoint

KEY = "sk-very-secret-0123"


def client(url: str, waits: list[float] | None = None, **choices: Any) -> OpenAiCompatible:
    config = LlmLabeller(backend="openai", model="some-model", base_url=url, **{"timeout_s": 5, **choices})
    return OpenAiCompatible(config, api_key=SecretStr(KEY), sleep=(waits if waits is not None else []).append)


def test_good_answers_come_back_in_the_order_of_their_prompts() -> None:
    def late_for_the_first(request: dict[str, Any], _: int) -> Reply:
        prompt = request["messages"][-1]["content"]
        reply = Reply.saying(f"answer to {prompt}")
        reply.after_s = 0.2 if prompt == "p0" else 0
        return reply

    with endpoint(late_for_the_first) as at:
        answers = client(at.url).ask([f"p{i}" for i in range(12)], system="be brief", max_tokens=7)
    assert answers == [f"answer to p{i}" for i in range(12)]
    assert {request["path"] for request in at.requests} == {"/v1/chat/completions"}
    first = at.requests[0]
    assert first["model"] == "some-model"
    assert first["max_tokens"] == 7
    assert first["temperature"] == 0
    assert first["messages"][0] == {"role": "system", "content": "be brief"}
    assert set(at.authorizations) == {f"Bearer {KEY}"}


def test_an_endpoint_that_is_down_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    waits: list[float] = []
    with pytest.raises(EndpointUnavailable) as error:
        client(url, waits, max_retries=2).ask(["p"], max_tokens=1)
    assert url in str(error.value)
    assert "3 times" in str(error.value)
    assert "finished labels are kept" in error.value.hint
    assert len(waits) == 2


def test_an_endpoint_that_is_too_slow_says_for_how_long_was_waited() -> None:
    def slow(_request: dict[str, Any], _before: int) -> Reply:
        return Reply(after_s=1.0)

    with endpoint(slow) as at, pytest.raises(EndpointUnavailable, match=r"no answer in 0\.1 s, 2 times"):
        client(at.url, timeout_s=0.1, max_retries=1).ask(["p"], max_tokens=1)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_failure_is_tried_again_with_longer_waits(status: int) -> None:
    def twice(_request: dict[str, Any], before: int) -> Reply:
        return Reply(status) if before < 3 else Reply.saying("at last")

    waits: list[float] = []
    with endpoint(twice) as at:
        assert client(at.url, waits, max_retries=3).ask(["p"], max_tokens=1) == ["at last"]
    assert len(at.requests) == 4
    assert len(waits) == 3
    assert waits[2] > waits[0]


def test_the_endpoint_may_ask_for_a_longer_wait() -> None:
    def busy(_request: dict[str, Any], before: int) -> Reply:
        return Reply(429, headers={"retry-after": "17"}) if before == 0 else Reply.saying("ok")

    waits: list[float] = []
    with endpoint(busy) as at:
        client(at.url, waits).ask(["p"], max_tokens=1)
    assert waits == [17]


def test_tries_end() -> None:
    def never(_request: dict[str, Any], _before: int) -> Reply:
        return Reply(503)

    with endpoint(never) as at, pytest.raises(EndpointUnavailable, match="answers 503, 3 times"):
        client(at.url, max_retries=2).ask(["p"], max_tokens=1)
    assert len(at.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_refusal_is_not_asked_again(status: int) -> None:
    def refuse(_request: dict[str, Any], _before: int) -> Reply:
        return Reply(status, b'{"error": "no such model"}')

    with (
        endpoint(refuse) as at,
        pytest.raises(EndpointUnavailable, match=f"answers {status}.*no such model") as error,
    ):
        client(at.url).ask(["p"], max_tokens=1)
    assert len(at.requests) == 1
    assert "SAEOPS_LLM_API_KEY" in error.value.hint


@pytest.mark.parametrize("body", [b"<html>log in</html>", b"{}", b'{"choices": []}', b"[1]"])
def test_what_is_no_chat_completion_is_said(body: bytes) -> None:
    def other(_request: dict[str, Any], _before: int) -> Reply:
        return Reply(body=body)

    with endpoint(other) as at, pytest.raises(EndpointUnavailable, match="other than a chat completion"):
        client(at.url, max_retries=0).ask(["p"], max_tokens=1)


def test_an_empty_answer_is_an_answer_for_the_parser() -> None:
    def empty(_request: dict[str, Any], _before: int) -> Reply:
        return Reply.saying(None)

    with endpoint(empty) as at:
        assert client(at.url).ask(["p"], max_tokens=1) == [""]


def test_the_key_is_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    def refuse(_request: dict[str, Any], _before: int) -> Reply:
        return Reply(401, b"bad key")

    with endpoint(refuse) as at:
        llm = client(at.url.replace("http://", "http://user:hunter2@"))
        with pytest.raises(EndpointUnavailable) as error:
            llm.ask(["p"], max_tokens=1)
    for shown in (repr(llm), str(error.value), repr(llm.identity), caplog.text):
        assert KEY not in shown
    assert "hunter2" not in repr(llm) + str(error.value)


def test_an_endpoint_only_writes() -> None:
    assert client("http://127.0.0.1:1/v1").lean(["p"]) is None


def test_the_model_in_process_writes_and_leans_the_same_alone_and_in_a_batch(
    tiny_model: TransformersModel,
) -> None:
    llm: Llm = InProcess(tiny_model)
    prompts = ["the cat", "An expression is a longer prompt than that", "x"]
    together = llm.ask(prompts, max_tokens=5)
    assert together == [llm.ask([prompt], max_tokens=5)[0] for prompt in prompts]
    prompts = [f"Does it fit? Answer Yes or No.\nText: {prompt}" for prompt in prompts]  # read once, then apart
    leans, alone = llm.lean(prompts), [(llm.lean([prompt]) or [0.0])[0] for prompt in prompts]
    assert leans == pytest.approx(alone, abs=1e-4)
    assert len(set(leans or [])) == 3


def test_the_fake_counts_what_it_is_asked() -> None:
    llm: Llm = ScriptedLlm(str.upper)
    assert llm.ask(["a", "b"], max_tokens=1) == ["A", "B"]
    assert llm.lean(["a"]) is None
    assert isinstance(llm, ScriptedLlm)
    assert llm.asked == ["a", "b"]
