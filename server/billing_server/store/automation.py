"""How automations and their runs are stored and listed."""

from __future__ import annotations

from billing_server.domain.automation import Automation, AutomationRun, RunStatus, Trigger
from billing_server.store.listing import Filter
from billing_server.store.rows import Rows

AUTOMATIONS = Rows(Automation, "automation", "automations", "automation_row")
AUTOMATION_RUNS = Rows(AutomationRun, "automation_run", "automation_runs", "automation_run_row")


class AutomationFilter(Filter[Automation], frozen=True, kw_only=True):
    """Which automations to list; deleted ones only when asked for."""

    trigger: Trigger | None = None
    enabled: bool | None = None
    deleted: bool | None = False


class AutomationRunFilter(Filter[AutomationRun], frozen=True, kw_only=True):
    """Which runs to list."""

    automation: str | None = None
    customer: str | None = None
    invoice: str | None = None
    subscription: str | None = None
    status: RunStatus | None = None
    test_clock: str | None = None
