"""The params section `serve`: when the service looks at what."""

from typing import Annotated

from pydantic import Field

from saeops.config import Frozen

Cron = Annotated[str, Field(pattern=r"^\S+( \S+){4}$")]


class ServeConfig(Frozen):
    """Five-field cron lines in UTC; null: only when something else asks for it."""

    watch: Cron | None = "*/5 * * * *"
    """Model sources, finished reviews and incidents are looked at."""
    audit: Cron | None = "0 3 * * *"
    """The champion is audited if the policy says that an audit is due."""
    retrain: Cron | None = "0 4 * * *"
    """What the policy wants done is done, though no event asked for it."""
