"""Several workers, and one bastion to the operator: asks all of them and puts the answers together."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from bastion.admin import AdminError, Command
from bastion.commands import refreshed, told_to_end
from bastion.crew import Worker
from bastion.metrics import PREFIX, merged, rendered

ANSWER_SECONDS = 50.0
"""How long a worker may take to answer."""


@dataclass(slots=True)
class View:
    """The commands and metrics of all `workers`. `crashes` and `restarts` count over the supervisor's life."""

    workers: Mapping[int, Worker]
    crashes: int = 0
    restarts: int = 0

    def commands(self) -> Mapping[str, Command]:
        """The commands by name."""
        return {
            "sessions": self._sessions,
            "refresh-keys": self._refresh_keys,
            "cut": self._cut,
            "workers": self._show_workers,
        }

    async def metrics(self) -> bytes:
        """What Prometheus reads: each worker's metrics with a label for it, and the supervisor's own."""
        try:
            answers = await self._ask_all({"command": "metrics"})
        except AdminError:
            answers = {}
        texts = {str(number): str(answer.get("text", "")).encode() for number, answer in answers.items()}
        return rendered([*self._own_metrics(), *merged(texts)])

    async def _ask_all(self, request: Mapping[str, object]) -> dict[int, Mapping[str, object]]:
        """The answers of all workers by their numbers. A worker that says no says it for all; one that does not
        answer is left out. Raises `AdminError`."""
        workers = list(self.workers.values())
        answers = await asyncio.gather(
            *(worker.link.ask(request, ANSWER_SECONDS) for worker in workers), return_exceptions=True
        )
        given = {
            worker.number: answer
            for worker, answer in zip(workers, answers, strict=True)
            if not isinstance(answer, BaseException)
        }
        for answer in answers:
            if isinstance(answer, BaseException) and (not given or not isinstance(answer, AdminError)):
                raise answer
        return given

    async def _sessions(self, request: Mapping[str, object]) -> Mapping[str, object]:
        answers = await self._ask_all(request)
        rows = [row for answer in answers.values() for row in _rows(answer)]
        rows.sort(key=lambda row: str(row.get("since")))
        return {"sessions": rows, **self._silent(answers)}

    async def _refresh_keys(self, request: Mapping[str, object]) -> Mapping[str, object]:
        answers = await self._ask_all(request)
        pods, keys, failed = (_most(answers, name) for name in ("pods", "keys", "failed"))
        said = f"{refreshed(pods, keys, failed)} Each of {len(answers)} workers asked for itself."
        return {"said": said, "pods": pods, "keys": keys, "failed": failed, **self._silent(answers)}

    async def _cut(self, request: Mapping[str, object]) -> Mapping[str, object]:
        answers = await self._ask_all(request)
        told = sum(_number(answer.get("cut")) for answer in answers.values())
        return {"said": told_to_end(told), "cut": told, **self._silent(answers)}

    async def _show_workers(self, request: Mapping[str, object]) -> Mapping[str, object]:
        del request
        now = time.monotonic()
        return {
            "workers": [
                {
                    "id": str(worker.number),
                    "process": worker.process.pid,
                    "state": worker.state,
                    "seconds": round(now - worker.began),
                }
                for worker in self.workers.values()
            ]
        }

    def _silent(self, answers: Mapping[int, object]) -> Mapping[str, object]:
        silent = sorted(number for number in self.workers if number not in answers)
        return {"silent": [str(number) for number in silent]} if silent else {}

    def _own_metrics(self) -> Iterator[Metric]:
        states = {"starting": 0, "accepting": 0, "leaving": 0}
        for worker in self.workers.values():
            states[worker.state] += 1
        workers = GaugeMetricFamily(f"{PREFIX}workers", "Worker processes by state.", labels=("state",))
        for state, number in states.items():
            workers.add_metric((state,), number)
        yield workers
        yield CounterMetricFamily(
            f"{PREFIX}worker_crashes", "Workers that ended by themselves and were started again.", value=self.crashes
        )
        yield CounterMetricFamily(f"{PREFIX}graceful_restarts", "Graceful restarts (SIGHUP).", value=self.restarts)


def _rows(answer: Mapping[str, object]) -> list[Mapping[str, object]]:
    rows = answer.get("sessions")
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []


def _most(answers: Mapping[int, Mapping[str, object]], name: str) -> int:
    return max((_number(answer.get(name)) for answer in answers.values()), default=0)


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
