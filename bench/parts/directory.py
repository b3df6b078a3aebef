"""Why: a row that cannot be measured yet stays in sight."""

from bench.figures import at_most
from bench.scale import Scale
from bench.stage import Stage
from bench.table import Result, Row


async def measure(stage: Stage, scale: Scale) -> Result:
    """Nothing yet."""
    why = "not measured yet: needs the Kubernetes directory"
    rows = (
        Row("5,000 pods listed, memory added", why=why, goal=at_most(50, "MB")),
        Row("5,000 pods listed, CPU", why=why, goal=at_most(1, "s")),
    )
    return Result("Directory", rows)
