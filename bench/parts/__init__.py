"""Why: each part measures one thing and can be asked for alone: `PARTS` names them in the order of the table."""

from collections.abc import Awaitable, Callable, Mapping

from bench.parts import bulk, client, crowd, directory, files, logins, signing, stops
from bench.scale import Scale
from bench.stage import Stage
from bench.table import Result

Part = Callable[[Stage, Scale], Awaitable[Result]]

PARTS: Mapping[str, Part] = {
    "bulk": bulk.measure,
    "logins": logins.measure,
    "crowd": crowd.measure,
    "files": files.measure,
    "stops": stops.measure,
    "signing": signing.measure,
    "directory": directory.measure,
    "client": client.measure,
}
