"""What this process or its machine has run out of, where that is why nobody could be reached.

Where the system's files cannot be opened, a name is "not known" and a certificate "of an unknown
authority", without a word of why. So it is tried then whether files can be opened at all.
"""

import errno
import os
import socket
import ssl
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Final

AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]
"""As `socket.getaddrinfo` has them."""

_OF_FILES: Final = {
    errno.EMFILE: "the gateway is out of file descriptors: raise `ulimit -n` or LimitNOFILE",
    errno.ENFILE: "this machine is out of file descriptors: raise the sysctl fs.file-max",
}
_OF_PORTS: Final = (
    "this machine is out of local ports to there: widen the sysctl net.ipv4.ip_local_port_range"
)
_NEEDED: Final = 2
"""Descriptors that a connection and the file of its authority take."""


def shortage(error: BaseException, tried: Sequence[AddressInfo] = ()) -> str | None:
    """What was lacking, and its cure, where that is what `error` says; else `None`.

    `error` is the system's own, several of which may have been joined into one text. `tried` are
    the addresses that it is about.
    """
    if isinstance(error, socket.gaierror | ssl.SSLCertVerificationError):
        return _OF_FILES.get(_opening() or 0)
    if not isinstance(error, OSError):
        return None
    for number, cure in _OF_FILES.items():
        if _count(error, number, 1):
            return cure
    # The same is said where there is no address of ours to come from, as to ::1 without IPv6.
    refused = _count(error, errno.EADDRNOTAVAIL, len(tried))
    return _OF_PORTS if refused and refused > sum(map(_is_elsewhere, tried)) else None


def see_that_files_open() -> None:
    """Raises `OSError` where they don't."""
    number = _opening()
    if number is not None:
        raise OSError(number, os.strerror(number))


def _count(error: OSError, number: int, all_of_them: int) -> int:
    """How many of the errors that were joined into this one are of that number."""
    return all_of_them if error.errno == number else str(error).count(f"[Errno {number}]")


def _opening() -> int | None:
    """What is said of opening files, if they cannot be."""
    with ExitStack() as opened:
        for _ in range(_NEEDED):
            try:
                opened.callback(os.close, os.open(os.devnull, os.O_RDONLY))
            except OSError as error:
                return error.errno
    return None


def _is_elsewhere(tried: AddressInfo) -> bool:
    """Whether no address of ours leads there. Datagrams have ports of their own; none is sent."""
    family, *_, address = tried
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)
    except OSError:
        return True
    return False
