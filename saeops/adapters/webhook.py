"""A webhook for alerts: POST with JSON, tried again where another try may better it."""

from collections.abc import Callable
from time import sleep as real_sleep
from typing import Any

import httpx
import tenacity
from pydantic import SecretStr

from saeops.drift.policy.records import Incident
from saeops.errors import AlertUndelivered

TRIES = 4
TIMEOUT_S = 10.0
LONGEST_WAIT_S = 8.0


class _Transient(Exception):
    """An answer that another try may better."""


class Webhook:
    """An address that takes incidents.

    Args:
        address: may hold a token; never in a repr, an error or a log.
        sleep: how to wait between tries.
    """

    def __init__(self, address: SecretStr, *, sleep: Callable[[float], None] = real_sleep) -> None:
        self._address = address
        self._sleep = sleep

    def __repr__(self) -> str:
        return f"Webhook({self._shown()})"

    def __call__(self, incident: Incident) -> None:
        """Send one opening of an incident; `Idempotency-Key` is the same for every try of it.

        Raises:
            AlertUndelivered: not taken after all tries, or refused.
        """
        tries = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(TRIES),
            wait=tenacity.wait_exponential_jitter(initial=0.5, max=LONGEST_WAIT_S),
            retry=tenacity.retry_if_exception_type(_Transient),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            with httpx.Client(timeout=TIMEOUT_S) as client:
                tries(self._once, client, incident)
        except _Transient as error:
            raise self._undelivered(f"{error}, {TRIES} times") from None

    def _once(self, client: httpx.Client, incident: Incident) -> None:
        headers = {"Idempotency-Key": incident.event}
        try:
            response = client.post(self._address.get_secret_value(), json=payload(incident), headers=headers)
        except httpx.TimeoutException:
            raise _Transient(f"gave no answer in {TIMEOUT_S:g} s") from None
        except httpx.TransportError as error:
            raise _Transient(f"cannot be reached ({type(error).__name__})") from None
        except httpx.InvalidURL:
            raise self._undelivered("is no address") from None
        if response.status_code in (408, 409, 425, 429) or response.status_code >= 500:
            raise _Transient(f"answers {response.status_code}")
        if not response.is_success:
            raise self._undelivered(f"answers {response.status_code}")

    def _undelivered(self, what: str) -> AlertUndelivered:
        return AlertUndelivered(
            f"the webhook {self._shown()} {what}",
            hint="check SAEOPS_ALERTS_WEBHOOK and that it is up; the alert is kept and sent at the next round",
        )

    def _shown(self) -> str:
        """The host alone: paths of webhooks are often tokens."""
        try:
            return httpx.URL(self._address.get_secret_value()).host or "without a host"
        except httpx.InvalidURL:
            return "of no host"


def payload(incident: Incident) -> dict[str, Any]:
    """What is sent. `text` alone is enough for chats that take no more."""
    return {
        "event": "saeops.incident",
        "id": incident.event,
        "incident": incident.id,
        "episode": incident.episode,
        "kind": incident.kind,
        "name": incident.name,
        "opened": incident.opened,
        "message": incident.message,
        "hint": incident.hint,
        "text": f"{incident.kind}: {incident.message} → {incident.hint}",
    }
