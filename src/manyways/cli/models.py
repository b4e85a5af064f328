"""`manyways models`: which models there are, what is known of them, and what has become of them."""

from manyways.cli.models_history import diff, incidents
from manyways.cli.models_list import list_
from manyways.cli.models_probe import probe
from manyways.cli.models_refresh import refresh
from manyways.cli.options import Commands

app = Commands(
    no_args_is_help=True,
    help="Which models there are, whether they do what they claim, and what has become of them.",
)
app.command(name="list")(list_)
app.command()(refresh)
app.command()(probe)
app.command()(diff)
app.command()(incidents)
