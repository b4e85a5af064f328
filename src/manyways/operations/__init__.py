"""What an operator can do: plain functions over a database, whoever calls them.

Moments (`now`) are Unix seconds. Everything may raise `StoreError`, and `Mistake` (a
`ConfigError`) for what cannot be. Nothing is ever deleted. A server that changes keys or
accounts in its own process awaits `KeyRing.poll` behind it: what it did bites at once then, and
within a second everywhere else.
"""

from manyways.operations.accounts import (
    create_account,
    get_account,
    list_accounts,
    resume_account,
    set_account_limits,
    suspend_account,
)
from manyways.operations.keys import (
    OVERLAP,
    CreatedKey,
    Show,
    count_keys,
    create_key,
    ensure_admin_key,
    find_keys,
    get_key,
    list_keys,
    revoke_key,
    rotate_key,
    set_key_limits,
)
from manyways.operations.limits import as_limits
from manyways.operations.wording import Mistake
from manyways.store.accounts import AccountRow
from manyways.store.keys import KeyRow

__all__ = [
    "OVERLAP",
    "AccountRow",
    "CreatedKey",
    "KeyRow",
    "Mistake",
    "Show",
    "as_limits",
    "count_keys",
    "create_account",
    "create_key",
    "ensure_admin_key",
    "find_keys",
    "get_account",
    "get_key",
    "list_accounts",
    "list_keys",
    "resume_account",
    "revoke_key",
    "rotate_key",
    "set_account_limits",
    "set_key_limits",
    "suspend_account",
]
