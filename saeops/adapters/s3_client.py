"""A boto3 client whose credentials come from the environment and nowhere else."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.session import Session

from saeops.errors import UsageError

FROM_ENVIRONMENT = {"env", "assume-role-with-web-identity", "container-role"}
"""boto3's providers that variables alone lead to: keys, a Kubernetes service account, a container's role."""
REGION = "us-east-1"
"""Any will do for servers that have none; AWS_REGION names another."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for S3."""

    connect_s: float = 5
    read_s: float = 30
    """For the next bytes of an answer."""
    again_s: float = 10
    """From its first attempt on, a request that may succeed a moment later is repeated for so long."""


def make_client(patience: Patience, environ: Mapping[str, str] = os.environ) -> Any:
    """A client of S3 or of whatever AWS_ENDPOINT_URL names; attempts are the caller's matter.

    Raises:
        UsageError: the address of the endpoint, or a profile that the environment names, cannot be used.
    """
    session = Session()
    resolver = session.get_component("credential_provider")
    for provider in list(resolver.providers):
        if provider.METHOD not in FROM_ENVIRONMENT:
            resolver.remove(provider.METHOD)
    config = Config(
        connect_timeout=patience.connect_s,
        read_timeout=patience.read_s,
        # A conditional write that botocore repeats by itself would be refused by its own first attempt.
        retries={"mode": "standard", "total_max_attempts": 1},
        # Every put names its sha256 here, and every get is compared with it.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        max_pool_connections=16,
    )
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or REGION
    try:
        return boto3.Session(botocore_session=session, region_name=region).client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        # botocore repeats the address in its message, and an address can hold a password.
        raise UsageError(
            f"no S3 client can be made of the environment ({type(error).__name__})",
            hint="check AWS_ENDPOINT_URL (http://host:port), AWS_REGION, AWS_PROFILE",
        ) from None


def shown(endpoint: str) -> str:
    """An endpoint's address without user and password."""
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
