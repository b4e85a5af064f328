"""Runs the gateway inside TensorZero's wheel until SIGTERM. Started with that wheel's Python.

Arguments: its configuration file, and the file that is to hold the port it picked.
"""

import importlib
import signal
import sys
import types
import urllib.parse
import warnings
from pathlib import Path


def main(config: str, port_file: str) -> None:
    warnings.simplefilter("ignore")
    # By name: it lives in an environment of its own, which no checker of ours looks into.
    tensorzero = importlib.import_module("tensorzero")
    client = types.SimpleNamespace(base_url="")
    tensorzero.patch_openai_client(client, config_file=config, async_setup=False)
    port = urllib.parse.urlsplit(str(client.base_url)).port
    partial = Path(port_file + ".part")
    partial.write_text(str(port))
    partial.rename(port_file)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    # Blocked before the gateway starts its threads, so that the signal waits for `sigwait`.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main(*sys.argv[1:])
