"""The command line of the benchmark."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, NoReturn

from rich.console import Console

from bench import install, peers, plot, report, results, run, sampling, transport, wrk
from bench.failures import BenchError, Missing

WIDTH: Final = 140
"""Columns of the tables where there is no terminal to ask."""
DATABASES: Final = ("sqlite", "postgresql")
RESULTS: Final = install.HERE / "results.json"
DOCS: Final = install.HERE.parent / "docs"

_EPILOG: Final = """\
commands
  measure   install, check and measure (the default)
  install   only install the load generator and the peers
  report    write docs/benchmark.* again from bench/results.json
  transport what an exchange costs over each of our transports, without a gateway, and over
            "bare": the least code that asks at all, without limits or checks, as a yardstick
  soak      minutes or an hour of load with faults: is memory flat, every answer honest?
  profile   run Manyways under a sampling profiler and name its dearest functions
  simulate  play outages in virtual time, write docs/simulation.*
  accounts  what limits on keys and accounts cost, on SQLite, and PostgreSQL with Valkey
  catalog   the public catalog with 5,000 models, beside nginx with the same bytes
  keys      ten keys in the database, and a million
  workers   one process, and two
  reports   time reports of usage over ten million requests, on SQLite and PostgreSQL
  parity    count rows and answers while the database hangs
  path      what a request costs between the HTTP server and the transport
  verification
            verify a thousand models over forty providers, with a kill in the middle

examples
  python -m bench                                          all of it, twenty minutes
  python -m bench --only manyways,tensorzero --work unary --seconds 3 --rounds 1
  python -m bench accounts                                 three minutes
  python -m bench transport --work unary,memory --rounds 5
  python -m bench soak --minutes 60 --rate 300
  python -m bench profile --work paced --seconds 8
  python -m bench reports --rows 1000000 --on sqlite
  python -m bench parity --rate 1000 --seconds 30

A run of everything writes bench/results.json, docs/benchmark.md and docs/benchmark.svg.
A narrower one prints its tables and keeps its figures in bench/.work/last.json.
It wants two cores that nobody else uses; figures of different runs do not compare, ratios do.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure Manyways and its peers on the same work, in one run.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    names = [peer.name for peer in peers.PEERS]
    add(
        "command",
        nargs="?",
        default="measure",
        choices=tuple(_COMMANDS),
        help="what to do, see below",
    )
    add("--only", type=_names(names), metavar="PEERS", help=f"some of {','.join(names)}")
    every = tuple(dict.fromkeys((*run.WORKS, *transport.WORKS)))
    add("--work", type=_names(every), metavar="WORKS", help=_works())
    add("--seconds", type=_between(1, 600), help="of each measurement (default 5; of parity 60)")
    add("--rounds", type=_between(1, 100), default=3, help="of everything (default 3)")
    add("--cores", type=_cores, metavar="G,L", help="the gateway's core and the load's")
    add("--rows", type=_between(1000, 10**9), default=10**7, help="requests to report on")
    add("--on", type=_names(DATABASES), default=DATABASES, help=f"some of {','.join(DATABASES)}")
    add("--rate", type=_between(10, 10**5), help="requests/s of parity (default 2000) and soak")
    add("--minutes", type=_between(1, 10**4), default=60, help="of soak (default 60)")
    add("--transport", choices=("native", "aiohttp"), default="native", help="of soak's gateway")
    add("--write", action="store_true", help="write results and docs after a narrower run too")
    return parser


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Do what the command line says, then exit: 0 done, 1 failed, 2 misused, 130 interrupted."""
    parser = _parser()
    options = parser.parse_args(arguments)
    # Whoever ends us, everything that was started is stopped on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    try:
        status = _COMMANDS[options.command](options, console)
    except BenchError as error:
        console.print(f"{type(error).__name__}: {error}", style="red", markup=False)
        status = 1
    except KeyboardInterrupt:
        console.print("interrupted; everything that was started has been stopped")
        status = 130
    sys.exit(status)


def _measure(options: argparse.Namespace, console: Console) -> int:
    settings = _settings(options)
    os.sched_setaffinity(0, {settings.load_core})
    found = run.Run(settings, lambda line: console.print(line, markup=False, highlight=False))
    measured = found.measure()
    report.show(measured, console)
    measured.write(run.WORK_FOLDER / "last.json")
    if options.write or (options.only is None and options.work is None):
        measured.write(RESULTS)
        _write_docs(measured, console)
    return 0


def _install(options: argparse.Namespace, console: Console) -> int:
    del options
    install.debian("wrk", wrk.PACKAGES)
    for peer in peers.PEERS:
        try:
            console.print(f"{peer.label} {peer.have()}")
        except Missing as error:
            console.print(f"{peer.label} is left out: {error}", markup=False)
    return 0


def _report(options: argparse.Namespace, console: Console) -> int:
    del options
    try:
        kept = results.read(RESULTS)
    except FileNotFoundError as error:
        raise Missing("bench/results.json is not there yet: run `make bench` first") from error
    report.show(kept, console)
    _write_docs(kept, console)
    return 0


def _profile(options: argparse.Namespace, console: Console) -> int:
    work = (options.work or ("unary",))[0]
    settings = _settings(options)
    os.sched_setaffinity(0, {settings.load_core})
    sampling.profile(work, settings, console)
    return 0


def _transport(options: argparse.Namespace, console: Console) -> int:
    cores = options.cores or _two_cores()
    os.sched_setaffinity(0, {cores[1]})
    return transport.main(
        console,
        chosen=_chosen(options.work, transport.WORKS),
        seconds=options.seconds or 3,
        rounds=options.rounds,
        cores=cores,
    )


def _soak(options: argparse.Namespace, console: Console) -> int:
    from bench import soak

    cores = options.cores or _two_cores()
    os.sched_setaffinity(0, {cores[1]})
    return soak.main(
        console,
        minutes=options.minutes,
        rate=options.rate or soak.RATE,
        transport=options.transport,
        cores=cores,
    )


def _simulate(options: argparse.Namespace, console: Console) -> int:
    del options
    from bench.simulate import page

    page.write(DOCS)
    console.print("written: docs/simulation.md, docs/simulation.svg")
    return 0


def _reports(options: argparse.Namespace, console: Console) -> int:
    from bench import reports

    return reports.main(console, rows=options.rows, only=options.on)


def _parity(options: argparse.Namespace, console: Console) -> int:
    from bench import parity

    gateway, load = options.cores or _two_cores()
    return parity.run(
        console,
        rate=options.rate or parity.RATE,
        seconds=options.seconds or 60,
        gateway_core=gateway,
        load_core=load,
    )


def _path(options: argparse.Namespace, console: Console) -> int:
    from bench import path

    os.sched_setaffinity(0, {(options.cores or _two_cores())[0]})
    return path.main(console)


def _accounts(options: argparse.Namespace, console: Console) -> int:
    from bench import accounts

    return accounts.main(_own_settings(options), console)


def _catalog(options: argparse.Namespace, console: Console) -> int:
    from bench import catalog

    return catalog.main(_own_settings(options), console)


def _verification(options: argparse.Namespace, console: Console) -> int:
    from bench import verification

    gateway, load = options.cores or _two_cores()
    return verification.run(console, gateway_core=gateway, load_core=load)


def _keys(options: argparse.Namespace, console: Console) -> int:
    from bench import many_keys

    return many_keys.main(_own_settings(options), console)


def _workers(options: argparse.Namespace, console: Console) -> int:
    from bench import workers

    return workers.main(_own_settings(options), console)


_COMMANDS: Final = {
    "measure": _measure,
    "install": _install,
    "report": _report,
    "transport": _transport,
    "soak": _soak,
    "profile": _profile,
    "simulate": _simulate,
    "accounts": _accounts,
    "catalog": _catalog,
    "keys": _keys,
    "workers": _workers,
    "reports": _reports,
    "parity": _parity,
    "path": _path,
    "verification": _verification,
}


def _write_docs(measured: results.Results, console: Console) -> None:
    DOCS.mkdir(exist_ok=True)
    (DOCS / "benchmark.md").write_text(report.page(measured))
    (DOCS / "benchmark.svg").write_text(plot.svg(measured))
    console.print("written: bench/results.json, docs/benchmark.md, docs/benchmark.svg")


def _own_settings(options: argparse.Namespace) -> run.Settings:
    """For Manyways beside itself: what alternates more often needs less time."""
    settings = replace(_settings(options), peers=(), seconds=options.seconds or 3)
    os.sched_setaffinity(0, {settings.load_core})
    return settings


def _settings(options: argparse.Namespace) -> run.Settings:
    gateway, load = options.cores or _two_cores()
    chosen = [p for p in peers.PEERS if options.only is None or p.name in options.only]
    return run.Settings(
        peers=chosen,
        works=_chosen(options.work, run.WORKS),
        seconds=options.seconds or 5,
        rounds=options.rounds,
        gateway_core=gateway,
        load_core=load,
    )


def _works() -> str:
    return f"some of {','.join(run.WORKS)}; of transport some of {','.join(transport.WORKS)}"


def _chosen(named: Sequence[str] | None, known: Sequence[str]) -> Sequence[str]:
    """The works that were named, or all. Raises `Missing` for one that this command has not."""
    for name in named or ():
        if name not in known:
            raise Missing(f"{name} is none of the works {', '.join(known)}")
    return named or known


def _two_cores() -> tuple[int, int]:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise Missing("a second core: gateway and load must not take time from each other")
    return cores[0], cores[1]


def _names(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def names(text: str) -> tuple[str, ...]:
        chosen = tuple(name.strip() for name in text.split(","))
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return chosen

    return names


def _between(low: int, high: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdigit() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is no number from {low} to {high}")
        return int(text)

    return number


def _cores(text: str) -> tuple[int, int]:
    gateway, _, load = text.partition(",")
    usable = {str(core): core for core in os.sched_getaffinity(0)}
    if gateway == load or gateway not in usable or load not in usable:
        cores = ", ".join(usable)
        raise argparse.ArgumentTypeError(f"{text!r} names no two of the cores {cores}")
    return usable[gateway], usable[load]
