"""Logins of ssh connections that are held open at a bastion: which are decided, and which nobody waits for any more.

A bastion asks once a second for all of its connections, however many wait. So this is one reading question that no
writer has to wait for; who may have a certificate is decided when it is fetched (`api.device.collect`).
"""

from collections.abc import Sequence

from sqlalchemy import select, update

from api import tables
from api.logins import Kind, State, hashed
from api.store import Store

_table = tables.logins


async def undecided(store: Store, device_codes: Sequence[str], now_ms: int) -> frozenset[str]:
    """Those that somebody may still approve. The others are approved, denied, over, or unknown here.

    Raises `StoreUnavailable`.
    """
    ids = {hashed(code): code for code in device_codes}
    query = select(_table.c.device_sha256).where(
        _table.c.device_sha256.in_(ids),
        _table.c.kind == str(Kind.INTERACTIVE),
        _table.c.state == str(State.PENDING),
        _table.c.expires_at > now_ms,
    )
    async with store.reading() as connection:
        return frozenset(ids[one] for one in (await connection.execute(query)).scalars())


async def give_up(store: Store, device_code: str, now_ms: int) -> bool:
    """The connection is gone: nobody may approve its login any more, nor fetch what was approved. False: there was
    nothing to give up. Raises `StoreUnavailable`."""
    left = (_table.c.device_sha256 == hashed(device_code)) & (_table.c.kind == str(Kind.INTERACTIVE))
    open_still = _table.c.state.in_((str(State.PENDING), str(State.APPROVED)))
    ended = update(_table).where(left, open_still).values(state=str(State.DENIED), decided_at=now_ms)
    async with store.noting() as connection:
        return (await connection.execute(ended.returning(_table.c.state))).first() is not None
