"""The SQL of a spool in PostgreSQL, for one schema.

- Every statement is a transaction of its own, so that none is open while a message is sent.
- Rows are found by their primary key or by an index, whatever the planner believes of the size of the table: ids come
  as an array, and what a subquery finds becomes an array.
- The clock is that of the database.
- A change through a lease names its token, which every claim and every recovery increments.
"""

from __future__ import annotations

from typing import Final

from .schema import checked_schema

__all__ = ["SMALL", "Statements"]

#: Octets of a message that is read together with its job; a larger one is read in slices while it is sent.
SMALL: Final = 65536

_NOW: Final = "cast(extract(epoch from statement_timestamp()) as float8)"
#: JSON as text, because an application may have told its connections to decode it.
_COLUMNS: Final = (
    "id, keyed, state, created, not_before, scheduled_at, expires, held, token, attempts, recoveries, flagged, "
    "confirmed, marked, reason, cast(results as text) as results, cast(header as text) as header"
)
#: What a new job is made of, and the type of each.
_NEW: Final = {
    "id": "text",
    "keyed": "boolean",
    "not_before": "float8",
    "expires": "float8",
    "size": "bigint",
    "header": "json",
    "body": "bytea",
}
_PUT: Final = """
with new as ({new}),
known as (
    insert into {schema}.keys as k (id) select id from new where keyed order by id
    on conflict (id) do update set gone = null where k.gone <= {now} - {retention}
    returning id
)
insert into {schema}.jobs (id, keyed, created, not_before, scheduled_at, expires, size, header, body)
select id, keyed, {now}, coalesce(not_before, {now}), case when not_before is null then {now} else 0 end,
    expires, size, header, body
from new where not keyed or id in (select id from known)
on conflict (id) do nothing
returning id
"""
#: Limits the waiting for locks, for the rest of the transaction; read before the first row is inserted.
_LIMIT: Final = "set_config('lock_timeout', {milliseconds}, true) as set"
_FREE: Final = "marked = false, lease_until = null, holder = null"


#: What a job of another spool brings along.
_ADOPT: Final = """
    update @jobs set created = $2, not_before = $3, scheduled_at = $4, attempts = $5, recoveries = $6, flagged = $7,
        confirmed = $8, held = $9, reason = $10, results = cast($11::text as json)
    where id = $1"""
#: Delete a job that was put by a caller that was cancelled; one with a key may be that of others too.
_WITHDRAW: Final = """
    delete from @jobs
    where id = $1 and not keyed and state = 'queued' and token = 0 and attempts = 0 returning id"""
_NOTIFY: Final = "select pg_notify($1, '')"
_CLAIM: Final = f"""
    update @jobs set state = 'sending', token = token + 1, marked = $3, lease_until = {_NOW} + $4, holder = $5
    where id = any(array(
        select id from @jobs where state = 'queued' and not held and not_before <= coalesce($2, {_NOW})
        order by not_before, id limit $1 for update skip locked
    ))
    returning {_COLUMNS}, case when size <= {SMALL} then body end as body, {_NOW} as now"""
#: Queue again what was claimed by a statement whose answer was lost.
_UNCLAIM: Final = f"""
    update @jobs set state = 'queued', {_FREE}
    where state = 'sending' and holder = $1 and not (id = any($2::text[]))"""
#: End all leases of a holder; marked jobs may have been sent.
_RELEASE_ALL: Final = f"""
    update @jobs set state = 'queued', flagged = flagged or marked,
        confirmed = confirmed and not marked, {_FREE}
    where state = 'sending' and holder = $1"""
_EXTEND: Final = f"""
    update @jobs j set lease_until = {_NOW} + $3 from unnest($1::text[], $2::bigint[]) as c (id, token)
    where j.id = any($1) and j.id = c.id and j.token = c.token and j.state = 'sending' returning j.id"""
#: Marks, deletions and other ends, which share a transaction.
_UPDATE: Final = f"""
    with marks as (
        update @jobs j set marked = true, lease_until = {_NOW} + $3
        from unnest($1::text[], $2::bigint[]) as c (id, token)
        where j.id = any($1) and j.id = c.id and j.token = c.token and j.state = 'sending'
        returning j.id
    ), gone as (
        delete from @jobs j using unnest($4::text[], $5::bigint[]) as c (id, token)
        where j.id = any($4) and j.id = c.id and j.token = c.token and j.state = 'sending'
        returning j.id
    ), ends as (
        update @jobs j set
            state = c.state, flagged = c.flagged or j.flagged, {_FREE},
            attempts = j.attempts + c.counted::integer,
            confirmed = j.confirmed and not c.counted,
            reason = coalesce(c.reason, j.reason),
            results = coalesce(cast(c.results as json), j.results),
            not_before = coalesce(c.not_before, j.not_before),
            scheduled_at = case when c.not_before is null then j.scheduled_at else {_NOW} end
        from unnest(
            $6::text[], $7::bigint[], $8::text[], $9::boolean[], $10::boolean[], $11::text[], $12::text[],
            $13::float8[]
        ) as c (id, token, state, counted, flagged, reason, results, not_before)
        where j.id = any($6) and j.id = c.id and j.token = c.token and j.state = 'sending'
        returning j.id
    )
    select id from marks union all select id from gone union all select id from ends"""
#: What became of leases whose end may or may not have been stored.
_ENDED: Final = "select id, token, state from @jobs where id = any($1::text[])"
_RECOVER: Final = f"""
    update @jobs set
        recoveries = recoveries + 1, attempts = attempts + 1, token = token + 1,
        flagged = flagged or marked, confirmed = confirmed and not marked, {_FREE},
        state = case when recoveries + 1 >= $1 then 'failed' else 'queued' end,
        reason = case when recoveries + 1 >= $1 then 'poison' else reason end
    where id = any(array(
        select id from @jobs where state = 'sending' and lease_until < {_NOW}
        order by lease_until limit $2 for update skip locked
    ))
    returning id, state, flagged"""
#: Keep a row that is no valid job for an operator.
_SET_ASIDE: Final = f"""
    update @jobs set state = 'failed', reason = $3, {_FREE} where id = $1 and token = $2"""
_FORGET_KEYS: Final = f"""
    delete from @keys where id = any(array(
        select id from @keys where gone is not null and gone <= {_NOW} - $1::float8
        order by gone limit $2 for update skip locked
    ))"""
_ENTRY: Final = f"select {_COLUMNS} from @jobs where id = $1"
_ENTRY_FOR_UPDATE: Final = f"{_ENTRY} for update"
_REQUEUE: Final = """
    update @jobs set state = 'queued', not_before = $2, expires = $3, attempts = 0, recoveries = 0,
        held = false, results = cast($4::text as json), flagged = $5, confirmed = true, scheduled_at = $6
    where id = $1"""
_HOLD: Final = "update @jobs set held = $2 where id = $1 and state = 'queued' returning id"
_REMOVE: Final = "delete from @jobs where id = $1 and state <> 'sending' returning id"
_STATE: Final = "select state from @jobs where id = $1"
_BODY: Final = "select body from @jobs where id = $1"
_SLICE: Final = "select substring(body from $2 for $3) from @jobs where id = $1"
_LIST: Final = {
    "": f"select {_COLUMNS} from @jobs where id > $1 order by id limit $2",
    "queued": f"select {_COLUMNS} from @jobs where state = 'queued' and id > $1 order by id limit $2",
    "sending": f"select {_COLUMNS} from @jobs where state = 'sending' and id > $1 order by id limit $2",
    **{
        state: f"""
            select {_COLUMNS} from @jobs where state = '{state}' and (created, id) > ($1, $2)
            order by created, id limit $3"""
        for state in ("sent", "failed")
    },
}
_STATISTICS: Final = """
    select
        (select count(*) from @jobs where state = 'queued' and not held) as free,
        (select count(*) from @jobs where state = 'queued' and held) as held,
        (select count(*) from @jobs where state = 'sending') as sending,
        (select count(*) from @jobs where state = 'sent') as sent,
        (select count(*) from @jobs where state = 'failed') as failed,
        least(
            (select min(created) from @jobs where state = 'queued' and not held),
            (select min(created) from @jobs where state = 'queued' and held),
            (select min(created) from @jobs where state = 'sending')
        ) as oldest,
        (select min(not_before) from @jobs where state = 'queued' and not held) as next_due"""
_NEXT_DUE: Final = f"""
    select min(not_before) - {_NOW} from @jobs where state = 'queued' and not held"""
_HOLDERS: Final = f"""
    select holder, count(*) as leases, min(lease_until) - {_NOW} as left from @jobs where state = 'sending'
    group by holder order by holder"""
_CLOCK: Final = f"select {_NOW}"


class Statements:
    """The statements, with the name of the schema.

    Args:
        schema: the name of the schema.
    """

    def __init__(self, schema: str) -> None:
        self.schema: Final = checked_schema(schema)
        self.channel: Final = f"{schema}_due"
        arrays = ", ".join(f"${n}::{kind}[]" for n, kind in enumerate(_NEW.values(), 1))
        # JSON has no arrays in the driver's binary format.
        arrays = arrays.replace("::json[]", "::text[]")
        columns = ", ".join(f"cast({name} as {kind}) as {name}" for name, kind in _NEW.items())
        new = f"select {columns} from unnest({arrays}) as n ({', '.join(_NEW)})"
        retention = f"${len(_NEW) + 1}::float8"
        self.put: Final = _PUT.format(new=new, schema=schema, now=_NOW, retention=retention)
        # Not for the transaction of a caller, whose later statements would be limited too.
        limited = (
            f"{new}, (select {_LIMIT.format(milliseconds=f'${len(_NEW) + 2}::text')}) as l where l.set <> ''"
        )
        self.put_limited: Final = _PUT.format(new=limited, schema=schema, now=_NOW, retention=retention)
        self.adopt: Final = self._filled(_ADOPT)
        self.withdraw: Final = self._filled(_WITHDRAW)
        self.notify: Final = self._filled(_NOTIFY)
        self.claim: Final = self._filled(_CLAIM)
        self.unclaim: Final = self._filled(_UNCLAIM)
        self.release_all: Final = self._filled(_RELEASE_ALL)
        self.extend: Final = self._filled(_EXTEND)
        self.update: Final = self._filled(_UPDATE)
        self.ended: Final = self._filled(_ENDED)
        self.recover: Final = self._filled(_RECOVER)
        self.set_aside: Final = self._filled(_SET_ASIDE)
        self.forget_keys: Final = self._filled(_FORGET_KEYS)
        self.entry: Final = self._filled(_ENTRY)
        self.entry_for_update: Final = self._filled(_ENTRY_FOR_UPDATE)
        self.requeue: Final = self._filled(_REQUEUE)
        self.hold: Final = self._filled(_HOLD)
        self.remove: Final = self._filled(_REMOVE)
        self.state: Final = self._filled(_STATE)
        self.body: Final = self._filled(_BODY)
        self.slice: Final = self._filled(_SLICE)
        self.list: Final = {state: self._filled(text) for state, text in _LIST.items()}
        self.statistics: Final = self._filled(_STATISTICS)
        self.next_due: Final = self._filled(_NEXT_DUE)
        self.holders: Final = self._filled(_HOLDERS)
        self.now: Final = self._filled(_CLOCK)

    def put_one(self, placeholder: str) -> str:
        """Return the statement that puts one job in the transaction of a caller.

        Args:
            placeholder: makes a placeholder of the driver, such as `%({name})s`, of a name.
        """
        columns = ", ".join(
            f"cast({placeholder.format(name=name)} as {kind}) as {name}" for name, kind in _NEW.items()
        )
        retention = f"cast({placeholder.format(name='retention')} as float8)"
        return _PUT.format(new=f"select {columns}", schema=self.schema, now=_NOW, retention=retention)

    def _filled(self, text: str) -> str:
        """Return a statement with the names of the tables."""
        return text.replace("@", f"{self.schema}.")
