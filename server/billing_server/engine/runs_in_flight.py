"""Ending the runs of an automation that was told to take them along.

The automation carries a mark: runs of its version and of earlier ones are to end. Those that wake see it by
themselves; the others are ended here, at once. So a process that dies in between leaves nothing undone that matters:
no action of such a run happens any more.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from billing_server.domain.automation import Automation
from billing_server.domain.commands import CancelAutomationRun
from billing_server.domain.errors import DomainError
from billing_server.domain.event import Cause
from billing_server.engine.group_commit import GroupCommit
from billing_server.engine.work import Answered, Work
from billing_server.store.automation import AutomationRunFilter
from billing_server.store.listing import Cursor
from billing_server.store.store import Store

LOGGER = logging.getLogger(__name__)

_RUNS_AT_ONCE: Final = 200


async def end_runs_in_flight(
    store: Store, group: GroupCommit, account_id: str, automation_id: str, cause: Cause
) -> int:
    """End the runs that the automation's mark covers; return how many were ended.

    A run that cannot be ended now, since it has just ended or its test clock moves, is left to its mark.
    """
    ended = 0
    after: Cursor | None = None
    wanted = AutomationRunFilter(automation=automation_id, status="running")
    while True:
        async with store.view(account_id) as view:
            automation = await view.get(Automation, automation_id, "automation")
            page = await view.page(wanted, limit=_RUNS_AT_ONCE, after=after)
        covered = [run.id for run in page.items if run.automation_version <= automation.runs_canceled_version]
        ended += sum(await asyncio.gather(*(_end(group, account_id, run, cause) for run in covered)))
        if page.next is None:
            return ended
        after = page.next


async def _end(group: GroupCommit, account_id: str, run: str, cause: Cause) -> bool:
    promise: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
    try:
        await group.submit(account_id, Work(CancelAutomationRun(id=run), cause, promise))
    except DomainError as refusal:
        LOGGER.info("the run %s is left to the mark of its automation: %s", run, refusal.message)
        return False
    return True
