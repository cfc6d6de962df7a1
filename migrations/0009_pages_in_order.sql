-- billing: expands
-- Lists go by (created, id), and a billing run creates thousands of invoices in one second: an index that ends with
-- `created` had all of that second read and sorted for each page. Backward, these have the order of the pages.
-- Built at once and not CONCURRENTLY: there has been no release yet, so there are no large tables.
-- squawk-ignore-file require-concurrent-index-creation, require-concurrent-index-deletion

DROP INDEX customers_newest;
DROP INDEX subscriptions_newest;
DROP INDEX invoices_newest;
DROP INDEX subscription_schedules_newest;
DROP INDEX automation_runs_newest;
DROP INDEX automation_runs_by_automation;

CREATE INDEX customers_newest ON customers (account_id, created, id);
CREATE INDEX subscriptions_newest ON subscriptions (account_id, created, id);
CREATE INDEX invoices_newest ON invoices (account_id, created, id);
CREATE INDEX subscription_schedules_newest ON subscription_schedules (account_id, created, id);
CREATE INDEX automation_runs_newest ON automation_runs (account_id, created, id);
CREATE INDEX automation_runs_by_automation ON automation_runs (account_id, automation, created, id);
