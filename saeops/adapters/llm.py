"""LLMs behind the port `Llm`: an OpenAI-compatible endpoint, a model in process, and a script for tests."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePath
from time import sleep as real_sleep
from typing import Any

import httpx
import tenacity
from pydantic import SecretStr

from saeops.errors import EndpointUnavailable
from saeops.labelling.config import LlmLabeller
from saeops.ports import LanguageModel

LONGEST_WAIT_S = 30.0
"""Between two tries, whatever the endpoint asks for."""
AT_ONCE = 8
"""Requests in flight at an endpoint, and prompts in a batch in process."""
KEPT = "finished labels are kept, so the same command goes on from there"


class _Transient(Exception):
    """An answer that another try may better."""

    def __init__(self, what: str, retry_after_s: float = 0) -> None:
        super().__init__(what)
        self.retry_after_s = retry_after_s


class OpenAiCompatible:
    """An endpoint that speaks `POST <base_url>/chat/completions`.

    Args:
        api_key: sent as a bearer token; never in a repr, an error or a log.
        sleep: how to wait between tries.
    """

    batch = AT_ONCE
    outside = True

    def __init__(
        self,
        config: LlmLabeller,
        *,
        api_key: SecretStr | None = None,
        sleep: Callable[[float], None] = real_sleep,
    ) -> None:
        self.name = config.model
        self.identity: Mapping[str, Any] = {"backend": "openai", "model": config.model}
        self._config = config
        self._key = api_key
        self._sleep = sleep
        self._url = config.base_url.rstrip("/") + "/chat/completions"
        self._shown = str(httpx.URL(self._url).copy_with(userinfo=b""))

    def __repr__(self) -> str:
        key = "none" if self._key is None else "**********"
        return f"OpenAiCompatible({self._shown}, model={self.name}, api_key={key})"

    def ask(self, prompts: Sequence[str], *, system: str = "", prefix: str = "", max_tokens: int) -> list[str]:
        """One answer a prompt, in order, `AT_ONCE` requests in flight.

        An endpoint cannot be made to begin its answer with `prefix`.

        Raises:
            EndpointUnavailable: down, slow, refusing, or not speaking this protocol, after all tries.
        """
        messages = [{"role": "system", "content": system}] if system else []

        def answer(prompt: str) -> str:
            body = {
                "model": self.name,
                "messages": [*messages, {"role": "user", "content": prompt}],
                "max_tokens": max_tokens,
                "temperature": 0,
            }
            return self._tried(client, body)

        with httpx.Client(timeout=self._config.timeout_s) as client, ThreadPoolExecutor(AT_ONCE) as pool:
            asked = [pool.submit(answer, prompt) for prompt in prompts]
            try:
                return [each.result() for each in asked]
            except BaseException:
                # One prompt that ran out of tries means the endpoint is gone: do not try the others.
                pool.shutdown(cancel_futures=True)
                raise

    def lean(self, prompts: Sequence[str], *, system: str = "") -> None:
        """None: an endpoint only writes."""
        return

    def _tried(self, client: httpx.Client, body: dict[str, Any]) -> str:
        tries = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(1 + self._config.max_retries),
            wait=_wait,
            retry=tenacity.retry_if_exception_type(_Transient),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return tries(self._once, client, body)
        except _Transient as error:
            raise EndpointUnavailable(
                f"{self._shown} {error}, {1 + self._config.max_retries} times",
                hint=f"see that it runs, or raise label.llm.timeout_s; {KEPT} "
                "(or do without: --set label.llm_latents=0)",
            ) from error

    def _once(self, client: httpx.Client, body: dict[str, Any]) -> str:
        headers = {} if self._key is None else {"Authorization": f"Bearer {self._key.get_secret_value()}"}
        try:
            response = client.post(self._url, json=body, headers=headers)
        except httpx.TimeoutException as error:
            raise _Transient(f"gave no answer in {self._config.timeout_s:g} s") from error
        except httpx.TransportError as error:
            raise _Transient(f"cannot be reached ({error})") from error
        except httpx.InvalidURL as error:
            raise self._refused(f"is no address ({error})") from error
        if response.status_code in (408, 409, 425, 429) or response.status_code >= 500:
            raise _Transient(f"answers {response.status_code}", _retry_after(response))
        if response.status_code != 200:
            raise self._refused(f"answers {response.status_code}: {response.text[:200]}")
        return self._content(response)

    def _content(self, response: httpx.Response) -> str:
        try:
            content = response.json()["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError) as error:
            raise _Transient("answers with something other than a chat completion") from error
        return content if isinstance(content, str) else ""

    def _refused(self, what: str) -> EndpointUnavailable:
        return EndpointUnavailable(
            f"{self._shown} {what}",
            hint=f"check label.llm.base_url, label.llm.model and SAEOPS_LLM_API_KEY; {KEPT}",
        )


def _retry_after(response: httpx.Response) -> float:
    try:
        return float(response.headers.get("retry-after", 0))
    except ValueError:
        return 0.0


_backoff = tenacity.wait_exponential_jitter(initial=0.5, max=LONGEST_WAIT_S)


def _wait(state: tenacity.RetryCallState) -> float:
    """Longer each time, and at least as long as the endpoint asks for (within reason)."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_s if isinstance(error, _Transient) else 0.0
    return min(max(_backoff(state), asked), LONGEST_WAIT_S)


class InProcess:
    """A language model of this process: it writes in batches, and its leaning can be read from its logits."""

    batch = 2 * AT_ONCE
    outside = False

    def __init__(self, model: LanguageModel) -> None:
        self.name = PurePath(model.identity.ref).name.partition("@")[0].removesuffix(".gguf")
        self.identity: Mapping[str, Any] = {"backend": "in_process", "model": model.identity.digest}
        self._model = model

    def ask(self, prompts: Sequence[str], *, system: str = "", prefix: str = "", max_tokens: int) -> list[str]:
        """Greedy answers, as one batch, each with the prefix it was begun with."""
        written = self._model.generate(prompts, max_new_tokens=max_tokens, system=system, prefix=prefix)
        return [f"{prefix} {text}".strip() for text in written]

    def lean(self, prompts: Sequence[str], *, system: str = "") -> list[float]:
        """logit(Yes) − logit(No) as the answer's first word, a prompt."""
        logits = self._model.answer_logits(prompts, ("Yes", "No"), system=system)
        return (logits[:, 0] - logits[:, 1]).tolist()


class ScriptedLlm:
    """The fake: answers by a function of the prompt, and counts what it was asked.

    Args:
        answer: prompt → answer.
        lean: prompt → leaning, for one whose logits can be read; None for one that only writes.
    """

    batch = AT_ONCE
    outside = True

    def __init__(
        self,
        answer: Callable[[str], str],
        *,
        lean: Callable[[str], float] | None = None,
        name: str = "script",
    ) -> None:
        self.name = name
        self.identity: Mapping[str, Any] = {"backend": "script", "name": name}
        self.asked: list[str] = []
        self._answer = answer
        self._lean = lean

    def ask(self, prompts: Sequence[str], *, system: str = "", prefix: str = "", max_tokens: int) -> list[str]:
        self.asked.extend(prompts)
        return [self._answer(prompt) for prompt in prompts]

    def lean(self, prompts: Sequence[str], *, system: str = "") -> list[float] | None:
        return None if self._lean is None else [self._lean(prompt) for prompt in prompts]
