"""`python -m examples.story`: tell the story, and write its page."""

import subprocess
from pathlib import Path
from typing import Annotated

import typer

from examples.story.checkout import REPOSITORY, prepare
from examples.story.page import write_page
from examples.story.telling import Story, tell


def main(
    folder: Annotated[Path, typer.Option(help="Where the story's own checkout and its page go.")] = (
        REPOSITORY / "var" / "story"
    ),
) -> None:
    """Build on v1, promote, fine-tune, audit, retrain, carry labels over, promote v2, roll back.

    Stopped anywhere, the same command goes on from there.
    """
    checkout = folder / "checkout"
    prepare(checkout)
    story = Story.open(folder / "story.json")
    try:
        tell(story, checkout, typer.echo)
    except subprocess.CalledProcessError as error:
        typer.echo(
            f"\nfailed: {error.cmd}\nwhat is done is kept; mend it, and run the same command again", err=True
        )
        raise typer.Exit(error.returncode) from None
    page = write_page(story, checkout, folder)
    typer.echo(f"\ntold in {story.seconds / 60:.1f} minutes: {page}")


if __name__ == "__main__":
    typer.run(main)
