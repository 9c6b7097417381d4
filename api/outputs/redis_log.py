"""The output log in Redis: a stream with a consumer group for each side pipeline.

Keys, all below `{talipot:outputs}` (one slot of a cluster): `:stream` has the records, trimmed to
the retention's length; `:call:ID` is a hash of a call's state, which expires with the retention's
age: `choices`, a field `choice:INDEX` for each record that was added, and `GROUP:INDEX` for each
result.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from api.errors import OutputLogError
from api.outputs.log import GROUPS, Entry, Findings, LogStats, Result, Retention
from api.outputs.record import OutputRecord

_PREFIX = "{talipot:outputs}"
_STREAM = f"{_PREFIX}:stream"
_TIMEOUT_S = 5.0

# Added once, however often a writer that lost its connection tries again.
_APPEND = """
if redis.call('HSETNX', KEYS[2], 'choice:' .. ARGV[1], '1') == 1 then
  redis.call('HSET', KEYS[2], 'choices', ARGV[2])
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[4], '*', 'body', ARGV[5])
end
return 1
"""

# A result of a call that has expired is not kept: it would never expire.
_ACK = """
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('HSET', KEYS[2], ARGV[1] .. ':' .. ARGV[2], ARGV[3])
end
return redis.call('XACK', KEYS[1], ARGV[1], ARGV[4])
"""


class RedisLog:
    """`OutputLog` in Redis; implements the protocol."""

    def __init__(self, url: str, retention: Retention, *, lease_s: float) -> None:
        """Nothing is sent yet, so a server may start before its Redis does.

        Raises:
            OutputLogError: The URL is none.
        """
        self._retention = retention
        self._lease_ms = round(lease_s * 1000)
        try:
            self._redis: Any = redis.Redis.from_url(
                url,
                decode_responses=True,
                socket_timeout=_TIMEOUT_S,
                socket_connect_timeout=_TIMEOUT_S,
                # Who calls tries again, at a pace of its own.
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            raise OutputLogError(f"TALIPOT_REDIS_URL is no URL of Redis: {error}") from None
        self._append = self._redis.register_script(_APPEND)
        self._ack = self._redis.register_script(_ACK)

    def append(self, records: Sequence[OutputRecord]) -> None:
        """See `OutputLog`."""
        max_age_ms = round(self._retention.max_age_s * 1000)
        with self._asking(), self._redis.pipeline(transaction=False) as pipe:
            for record in records:
                self._append(
                    keys=[_STREAM, _call_key(record.call)],
                    args=[
                        record.index,
                        record.choices,
                        max_age_ms,
                        self._retention.max_records,
                        record.to_json(),
                    ],
                    client=pipe,
                )
            pipe.execute()

    def read(self, group: str, consumer: str, count: int) -> list[Entry]:
        """See `OutputLog`."""
        with self._asking():
            try:
                return self._read(group, consumer, count)
            except ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
            # A Redis that came back without its data: its groups are made anew.
            self._ensure_groups()
            return self._read(group, consumer, count)

    def ack(self, group: str, done: Sequence[tuple[Entry, Result]]) -> None:
        """See `OutputLog`."""
        with self._asking(), self._redis.pipeline(transaction=False) as pipe:
            for entry, result in done:
                self._ack(
                    keys=[_STREAM, _call_key(entry.record.call)],
                    args=[group, entry.record.index, json.dumps(result), entry.key],
                    client=pipe,
                )
            pipe.execute()

    def find(self, group: str, call: str) -> Findings | None:
        """See `OutputLog`."""
        with self._asking():
            fields: dict[str, str] = self._redis.hgetall(_call_key(call))
        if "choices" not in fields:
            return None
        found = {
            int(name.removeprefix(f"{group}:")): json.loads(value)
            for name, value in fields.items()
            if name.startswith(f"{group}:")
        }
        return Findings(choices=int(fields["choices"]), results=found)

    def stats(self) -> LogStats:
        """See `OutputLog`."""
        with self._asking():
            self._ensure_groups()
            depth: int = self._redis.xlen(_STREAM)
            groups = {group["name"]: group for group in self._redis.xinfo_groups(_STREAM)}
        # Redis does not know a lag where entries were trimmed that a group had not read.
        return LogStats(
            depth=depth,
            lag={n: depth if groups[n]["lag"] is None else groups[n]["lag"] for n in GROUPS},
            pending={name: groups[name]["pending"] for name in GROUPS},
        )

    def close(self) -> None:
        """See `OutputLog`."""
        self._redis.close()

    def _read(self, group: str, consumer: str, count: int) -> list[Entry]:
        _, claimed, _ = self._redis.xautoclaim(
            _STREAM, group, consumer, min_idle_time=self._lease_ms, count=count
        )
        entries = [
            Entry(key=key, record=_record(fields), deliveries=self._deliveries(group, key))
            for key, fields in claimed
            if fields  # else it was trimmed before anybody finished it
        ]
        if len(entries) < count:
            found = self._redis.xreadgroup(
                group, consumer, {_STREAM: ">"}, count=count - len(entries)
            )
            for _, new in found or ():
                entries += [Entry(key=k, record=_record(f), deliveries=1) for k, f in new]
        return entries

    def _deliveries(self, group: str, key: str) -> int:
        (found,) = self._redis.xpending_range(_STREAM, group, key, key, 1)
        times: int = found["times_delivered"]
        return times

    def _ensure_groups(self) -> None:
        for group in GROUPS:
            try:
                self._redis.xgroup_create(_STREAM, group, id="0", mkstream=True)
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except RedisError as error:
            raise OutputLogError(f"the output log failed: {error}") from error


def _call_key(call: str) -> str:
    return f"{_PREFIX}:call:{call}"


def _record(fields: dict[str, str]) -> OutputRecord:
    return OutputRecord.from_json(fields["body"])
