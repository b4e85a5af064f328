"""What to do about a Redis that will not have us: from its own words to an operator's next step."""

from typing import Final

_CURES: Final = (
    (
        "WRONGPASS",
        (
            "Mend user and password in cluster.redis: redis://user:password@host:6379/0. In them,"
            " the letters @ : / ? # % are written %40 %3A %2F %3F %23 %25."
        ),
    ),
    ("NOAUTH", "It wants a password. Write it into cluster.redis: redis://:password@host:6379/0"),
    (
        "NOPERM",
        (
            "Give the user in cluster.redis the right to all commands on our keys and channels:"
            " ACL SETUSER name ~manyways:* &manyways:* +@all"
        ),
    ),
    (
        "DB index is out of range",
        "It has fewer databases. Write a lower number at the end of cluster.redis, like /0.",
    ),
    (
        "cluster support disabled",
        "It is no cluster: write redis:// in place of redis+cluster:// in cluster.redis.",
    ),
    (
        "is part of a cluster",
        "Write redis+cluster:// in place of redis:// in cluster.redis.",
    ),
    (
        "is a Sentinel",
        "Write redis+sentinel://host:26379/name in cluster.redis, with what it calls the master.",
    ),
    (
        "is a replica",
        "Name its master in cluster.redis, or let Sentinel find it: redis+sentinel://.",
    ),
    (
        "SENTINEL",
        (
            "That is no Sentinel. Name the Sentinels in cluster.redis (their usual port is 26379),"
            " or write redis:// for the server itself."
        ),
    ),
    (
        "knows no master",
        (
            "Write what Sentinel calls the master at the end of cluster.redis:"
            " redis+sentinel://host:26379/name"
        ),
    ),
    ("unknown command", "Take Redis 6 or newer, or Valkey, with all of its commands."),
    ("NOPROTO", "Take Redis 6 or newer, or Valkey."),
    (
        "does not speak Redis",
        "Another program listens there. Mend host and port in cluster.redis.",
    ),
    ("leads nowhere", "Mend the host in cluster.redis, or the names that this machine knows."),
    (
        "certificate",
        "Have it show a certificate that this machine trusts, for the host in cluster.redis.",
    ),
)


def cure(why: str) -> str:
    """What somebody has to do before it can work; empty where it may pass by itself, as with a
    server that is restarted."""
    return next((words for sign, words in _CURES if sign in why), "")
