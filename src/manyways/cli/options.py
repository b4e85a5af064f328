"""Options that several commands have, said once so that they mean the same everywhere."""

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="TOML file; else $MANYWAYS_CONFIG, else ./manyways.toml, else built-in defaults.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
