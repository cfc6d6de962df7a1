"""Which struct of the domain is which message, and every exception from "equal names, equal fields".

Adding a field to a struct makes the server refuse to start until the field is in the message of the same name
or listed here as internal: nothing is forgotten, and nothing internal leaks.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from google.protobuf.message import Message

from billing.v1 import (
    account_model_pb2,
    account_service_pb2,
    automation_model_pb2,
    automation_service_pb2,
    catalog_model_pb2,
    catalog_service_pb2,
    customer_model_pb2,
    customer_service_pb2,
    event_model_pb2,
    invoice_model_pb2,
    invoice_service_pb2,
    meter_model_pb2,
    meter_service_pb2,
    payment_model_pb2,
    payment_service_pb2,
    schedule_model_pb2,
    schedule_service_pb2,
    subscription_model_pb2,
    subscription_service_pb2,
    test_clock_model_pb2,
    webhook_model_pb2,
    webhook_service_pb2,
)
from billing_server.domain import commands
from billing_server.domain.account import Account, ApiKey, EmailSettings, OverduePolicy, Settings
from billing_server.domain.automation import Action, Automation, AutomationRun, Condition, RunStep
from billing_server.domain.catalog import CurrencyOption, Price, Product, Recurring
from billing_server.domain.commands import ItemChange, ItemParams, PhaseDuration, PhaseParams
from billing_server.domain.customer import (
    Address,
    BalanceTransaction,
    Card,
    Customer,
    PaymentMethod,
    Shipping,
)
from billing_server.domain.dunning import RetryPolicy
from billing_server.domain.event import Cause
from billing_server.domain.invoice import CreditNote, Invoice, InvoiceItem, InvoiceLine
from billing_server.domain.meter import Meter
from billing_server.domain.payment import PaymentAttempt, PaymentError, PaymentIntent, Refund
from billing_server.domain.pricing import Tier, TransformQuantity
from billing_server.domain.recipes import RecipeParameters
from billing_server.domain.schedule import (
    CurrentPhase,
    Phase,
    PhaseItem,
    ScheduleDefaults,
    SubscriptionSchedule,
)
from billing_server.domain.subscription import (
    AddedInvoiceItem,
    AnchorConfig,
    CancellationDetails,
    PauseCollection,
    PendingInvoiceItemInterval,
    PendingUpdate,
    Subscription,
    SubscriptionItem,
)
from billing_server.domain.test_clock import TestClock
from billing_server.domain.webhook import WebhookDelivery, WebhookEndpoint

Internal = frozenset[str]

NOTHING: Internal = frozenset()
NO_ETAG: Internal = frozenset({"version"})

INSTANTS: frozenset[str] = frozenset(
    {
        "automatically_finalizes_at",
        "backdate_start_date",
        "billing_cycle_anchor",
        "cancel_at",
        "canceled_at",
        "completed_at",
        "created",
        "current_period_end",
        "current_period_start",
        "deactivated_at",
        "deletes_after",
        "detached_at",
        "disabled_at",
        "due_at",
        "due_date",
        "effective_at",
        "end_date",
        "ended_at",
        "executed_at",
        "expires_at",
        "finalized_at",
        "frozen_time",
        "marked_uncollectible_at",
        "next_action_at",
        "next_payment_attempt",
        "next_pending_invoice_item_invoice",
        "paid_at",
        "period_end",
        "period_start",
        "proration_date",
        "released_at",
        "resumes_at",
        "retrying_since",
        "revoked_at",
        "scheduled_at",
        "settled_at",
        "start_date",
        "target_frozen_time",
        "trial_end",
        "trial_start",
        "tried_at",
        "voided_at",
    }
)
"""Names of integers that are UTC seconds in the domain and Timestamps in messages, wherever they stand."""

RENAMED: Mapping[str, str] = {"version": "etag"}
"""Fields with another name in messages. A version becomes an opaque text."""

MODELS: Mapping[type[msgspec.Struct], tuple[type[Message], Internal]] = {
    Account: (account_model_pb2.Account, NOTHING),
    Settings: (account_model_pb2.Settings, NOTHING),
    RetryPolicy: (account_model_pb2.RetryPolicy, NOTHING),
    OverduePolicy: (account_model_pb2.OverduePolicy, NOTHING),
    EmailSettings: (account_model_pb2.EmailSettings, NOTHING),
    ApiKey: (account_model_pb2.ApiKey, NO_ETAG),
    Product: (catalog_model_pb2.Product, NOTHING),
    Price: (catalog_model_pb2.Price, NOTHING),
    CurrencyOption: (catalog_model_pb2.CurrencyOption, NOTHING),
    Recurring: (catalog_model_pb2.Recurring, NOTHING),
    Tier: (catalog_model_pb2.Tier, NOTHING),
    TransformQuantity: (catalog_model_pb2.TransformQuantity, NOTHING),
    Meter: (meter_model_pb2.Meter, NOTHING),
    Automation: (automation_model_pb2.Automation, frozenset({"runs_canceled_version"})),
    Condition: (automation_model_pb2.AutomationCondition, NOTHING),
    Action: (automation_model_pb2.AutomationAction, NOTHING),
    AutomationRun: (automation_model_pb2.AutomationRun, NO_ETAG),
    RunStep: (automation_model_pb2.AutomationRunStep, NOTHING),
    Customer: (customer_model_pb2.Customer, NOTHING),
    Address: (customer_model_pb2.Address, NOTHING),
    Shipping: (customer_model_pb2.Shipping, NOTHING),
    Card: (customer_model_pb2.Card, NOTHING),
    PaymentMethod: (customer_model_pb2.PaymentMethod, NOTHING),
    BalanceTransaction: (customer_model_pb2.BalanceTransaction, NO_ETAG),
    Subscription: (
        subscription_model_pb2.Subscription,
        frozenset(
            {
                "first_invoice",
                "status_invoice",
                "resumption_invoice",
                "trial_will_end_at",
                "trial_reminder_at",
                "upcoming_at",
                "free_stub",
                "trial_over_untold",
            }
        ),
    ),
    SubscriptionItem: (subscription_model_pb2.SubscriptionItem, frozenset({"usage_from"})),
    AnchorConfig: (subscription_model_pb2.AnchorConfig, NOTHING),
    CancellationDetails: (subscription_model_pb2.CancellationDetails, NOTHING),
    PauseCollection: (subscription_model_pb2.PauseCollection, NOTHING),
    PendingInvoiceItemInterval: (subscription_model_pb2.PendingInvoiceItemInterval, NOTHING),
    AddedInvoiceItem: (subscription_model_pb2.AddedInvoiceItem, NOTHING),
    PendingUpdate: (
        subscription_model_pb2.PendingUpdate,
        frozenset({"current_period_start", "current_period_end", "interval", "interval_count"}),
    ),
    SubscriptionSchedule: (schedule_model_pb2.SubscriptionSchedule, frozenset({"expiring_at"})),
    Phase: (schedule_model_pb2.SchedulePhase, NOTHING),
    PhaseItem: (schedule_model_pb2.PhaseItem, NOTHING),
    CurrentPhase: (schedule_model_pb2.CurrentPhase, NOTHING),
    ScheduleDefaults: (schedule_model_pb2.ScheduleDefaultSettings, NOTHING),
    Invoice: (
        invoice_model_pb2.Invoice,
        frozenset(
            {
                "attempts_started",
                "retries_done",
                "first_failure_at",
                "last_attempt_due_at",
                "hard_declined_method",
                "charging",
                "due_date_passed",
                "overdue_deadline_at",
                "collection_paused",
                "trial_over",
            }
        ),
    ),
    InvoiceLine: (invoice_model_pb2.InvoiceLine, NOTHING),
    InvoiceItem: (invoice_model_pb2.InvoiceItem, NOTHING),
    CreditNote: (invoice_model_pb2.CreditNote, NO_ETAG),
    PaymentIntent: (payment_model_pb2.PaymentIntent, NOTHING),
    PaymentError: (payment_model_pb2.PaymentError, NOTHING),
    PaymentAttempt: (
        payment_model_pb2.PaymentAttempt,
        NO_ETAG | {"created_real", "token", "check_at", "checks", "proposal"},
    ),
    Refund: (payment_model_pb2.Refund, NO_ETAG | {"created_real", "check_at", "checks", "charge_reference"}),
    TestClock: (test_clock_model_pb2.TestClock, NO_ETAG),
    WebhookEndpoint: (webhook_model_pb2.WebhookEndpoint, NOTHING),
    WebhookDelivery: (webhook_model_pb2.WebhookDelivery, frozenset({"position", "started_at"})),
    Cause: (event_model_pb2.EventCause, NOTHING),
}
"""Structs that are shown, their messages, and the fields that callers never see."""

INPUTS: Mapping[type[msgspec.Struct], type[Message]] = {
    ItemParams: subscription_service_pb2.ItemParams,
    ItemChange: subscription_service_pb2.ItemChange,
    RecipeParameters: automation_service_pb2.RecipeParameters,
    PhaseParams: schedule_service_pb2.PhaseParams,
    PhaseDuration: schedule_service_pb2.PhaseDuration,
}
"""Structs that only ever come in, inside of requests."""

COMMANDS: Mapping[type[msgspec.Struct], type[Message]] = {
    commands.UpdateSettings: account_service_pb2.UpdateSettingsRequest,
    commands.CreateProduct: catalog_service_pb2.CreateProductRequest,
    commands.UpdateProduct: catalog_service_pb2.UpdateProductRequest,
    commands.CreatePrice: catalog_service_pb2.CreatePriceRequest,
    commands.UpdatePrice: catalog_service_pb2.UpdatePriceRequest,
    commands.CreateMeter: meter_service_pb2.CreateMeterRequest,
    commands.UpdateMeter: meter_service_pb2.UpdateMeterRequest,
    commands.DeactivateMeter: meter_service_pb2.DeactivateMeterRequest,
    commands.ReactivateMeter: meter_service_pb2.ReactivateMeterRequest,
    commands.CreateAutomation: automation_service_pb2.CreateAutomationRequest,
    commands.CreateAutomationFromRecipe: automation_service_pb2.CreateAutomationFromRecipeRequest,
    commands.UpdateAutomation: automation_service_pb2.UpdateAutomationRequest,
    commands.DeleteAutomation: automation_service_pb2.DeleteAutomationRequest,
    commands.EnableAutomation: automation_service_pb2.EnableAutomationRequest,
    commands.DisableAutomation: automation_service_pb2.DisableAutomationRequest,
    commands.ReorderAutomations: automation_service_pb2.ReorderAutomationsRequest,
    commands.CancelAutomationRun: automation_service_pb2.CancelAutomationRunRequest,
    commands.CreateCustomer: customer_service_pb2.CreateCustomerRequest,
    commands.UpdateCustomer: customer_service_pb2.UpdateCustomerRequest,
    commands.DeleteCustomer: customer_service_pb2.DeleteCustomerRequest,
    commands.AttachPaymentMethod: customer_service_pb2.AttachPaymentMethodRequest,
    commands.UpdatePaymentMethod: customer_service_pb2.UpdatePaymentMethodRequest,
    commands.DetachPaymentMethod: customer_service_pb2.DetachPaymentMethodRequest,
    commands.AdjustBalance: customer_service_pb2.AdjustBalanceRequest,
    commands.CreateSubscription: subscription_service_pb2.CreateSubscriptionRequest,
    commands.UpdateSubscription: subscription_service_pb2.UpdateSubscriptionRequest,
    commands.CancelSubscription: subscription_service_pb2.CancelSubscriptionRequest,
    commands.ResumeSubscription: subscription_service_pb2.ResumeSubscriptionRequest,
    commands.CreateSubscriptionSchedule: schedule_service_pb2.CreateSubscriptionScheduleRequest,
    commands.UpdateSubscriptionSchedule: schedule_service_pb2.UpdateSubscriptionScheduleRequest,
    commands.CancelSubscriptionSchedule: schedule_service_pb2.CancelSubscriptionScheduleRequest,
    commands.ReleaseSubscriptionSchedule: schedule_service_pb2.ReleaseSubscriptionScheduleRequest,
    commands.CreateInvoice: invoice_service_pb2.CreateInvoiceRequest,
    commands.UpdateInvoice: invoice_service_pb2.UpdateInvoiceRequest,
    commands.DeleteInvoice: invoice_service_pb2.DeleteInvoiceRequest,
    commands.FinalizeInvoice: invoice_service_pb2.FinalizeInvoiceRequest,
    commands.PayInvoice: invoice_service_pb2.PayInvoiceRequest,
    commands.SendInvoice: invoice_service_pb2.SendInvoiceRequest,
    commands.VoidInvoice: invoice_service_pb2.VoidInvoiceRequest,
    commands.MarkInvoiceUncollectible: invoice_service_pb2.MarkInvoiceUncollectibleRequest,
    commands.CreateInvoiceItem: invoice_service_pb2.CreateInvoiceItemRequest,
    commands.UpdateInvoiceItem: invoice_service_pb2.UpdateInvoiceItemRequest,
    commands.DeleteInvoiceItem: invoice_service_pb2.DeleteInvoiceItemRequest,
    commands.CreateCreditNote: invoice_service_pb2.CreateCreditNoteRequest,
    commands.VoidCreditNote: invoice_service_pb2.VoidCreditNoteRequest,
    commands.ConfirmPaymentIntent: payment_service_pb2.ConfirmPaymentIntentRequest,
    commands.CreateRefund: payment_service_pb2.CreateRefundRequest,
    commands.CreateWebhookEndpoint: webhook_service_pb2.CreateWebhookEndpointRequest,
    commands.UpdateWebhookEndpoint: webhook_service_pb2.UpdateWebhookEndpointRequest,
    commands.DeleteWebhookEndpoint: webhook_service_pb2.DeleteWebhookEndpointRequest,
    commands.RotateWebhookSecret: webhook_service_pb2.RotateWebhookSecretRequest,
    commands.RedeliverWebhookDelivery: webhook_service_pb2.RedeliverWebhookDeliveryRequest,
}
"""Commands that callers give, and the requests that carry them."""

DERIVED: Mapping[type[msgspec.Struct], frozenset[str]] = {
    Invoice: frozenset({"overdue"}),
    SubscriptionItem: frozenset({"current_period_start", "current_period_end"}),
}
"""Fields of messages that their structs do not have; `encoding` computes them."""


EVENT_OBJECTS: Mapping[type[msgspec.Struct], str] = {
    Customer: "customer_object",
    PaymentMethod: "payment_method",
    Product: "product",
    Price: "price",
    Meter: "meter",
    Automation: "automation",
    AutomationRun: "automation_run",
    Subscription: "subscription",
    SubscriptionSchedule: "subscription_schedule",
    Invoice: "invoice",
    InvoiceItem: "invoice_item",
    PaymentIntent: "payment_intent",
    PaymentAttempt: "payment_attempt",
    Refund: "refund",
    CreditNote: "credit_note",
    BalanceTransaction: "balance_transaction",
    TestClock: "test_clock",
    Account: "account_object",
    ApiKey: "api_key",
    WebhookEndpoint: "webhook_endpoint",
}
"""Objects of events, and the field of Event's oneof that holds them."""
