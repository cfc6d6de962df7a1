"""What callers ask for, in the imperative. One struct per RPC that changes something.

Fields carry the names of the RPC's request message. In updates, `UNSET` means "leave as it is" and None
means "clear". Commands that the engine gives itself (settling payments) stand at the end.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from billing_server.domain.account import (
    EmailSettings,
    InvoiceFinalAction,
    OverduePolicy,
    SubscriptionFinalAction,
)
from billing_server.domain.automation import Action, Condition, Trigger
from billing_server.domain.calendar import Interval
from billing_server.domain.catalog import BillingScheme, CurrencyOption, Recurring, TaxBehavior, TiersMode
from billing_server.domain.customer import Address, Card, PaymentMethodType, Shipping, TaxExempt
from billing_server.domain.dunning import RetryPolicy
from billing_server.domain.invoice import CreditNoteReason
from billing_server.domain.meter import MeterFormula, MeterWindow
from billing_server.domain.payment import PaymentError, RefundReason
from billing_server.domain.pricing import Tier, TransformQuantity
from billing_server.domain.recipes import RecipeParameters
from billing_server.domain.schedule import EndBehavior, PhaseAnchor, PhaseItem, ScheduleDefaults
from billing_server.domain.subscription import (
    AddedInvoiceItem,
    AnchorConfig,
    BillingMode,
    CancellationFeedback,
    CollectionMethod,
    MissingPaymentMethod,
    PauseCollection,
    PaymentBehavior,
    PendingInvoiceItemInterval,
    ProrationBehavior,
    SaveDefaultPaymentMethod,
)

Metadata = dict[str, str]
RunsInFlight = Literal["let_finish", "cancel_all"]
"""What becomes of the runs of an automation that starts no more."""
PendingItemsBehavior = Literal["exclude", "include"]
ResumeAnchor = Literal["now", "unchanged"]


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A request to change something of one account."""


# --- account, catalog and meters: the account's pages


class UpdateSettings(Command, frozen=True, kw_only=True):
    default_currency: str | UnsetType = UNSET
    exchange_rates: dict[str, Decimal] | UnsetType = UNSET
    company_name: str | UnsetType | None = UNSET
    company_domain: str | UnsetType | None = UNSET
    team_users: tuple[str, ...] | UnsetType = UNSET
    retry_policy: RetryPolicy | UnsetType = UNSET
    one_off_retry_policy: RetryPolicy | UnsetType = UNSET
    subscription_final_action: SubscriptionFinalAction | UnsetType = UNSET
    invoice_final_action: InvoiceFinalAction | UnsetType = UNSET
    one_off_invoice_final_action: InvoiceFinalAction | UnsetType = UNSET
    overdue_policy: OverduePolicy | UnsetType = UNSET
    upcoming_renewal_days: int | UnsetType = UNSET
    finalization_delay_seconds: int | UnsetType = UNSET
    statement_descriptor: str | UnsetType | None = UNSET
    emails: EmailSettings | UnsetType = UNSET
    etag: str | None = None


class CreateProduct(Command, frozen=True, kw_only=True):
    name: str
    active: bool = True
    description: str | None = None
    statement_descriptor: str | None = None
    unit_label: str | None = None
    metadata: Metadata = {}


class UpdateProduct(Command, frozen=True, kw_only=True):
    id: str
    name: str | UnsetType = UNSET
    active: bool | UnsetType = UNSET
    description: str | UnsetType | None = UNSET
    default_price: str | UnsetType | None = UNSET
    statement_descriptor: str | UnsetType | None = UNSET
    unit_label: str | UnsetType | None = UNSET
    metadata: Metadata | UnsetType = UNSET
    etag: str | None = None


class CreatePrice(Command, frozen=True, kw_only=True):
    product: str
    currency: str
    active: bool = True
    nickname: str | None = None
    billing_scheme: BillingScheme = "per_unit"
    unit_amount: Decimal | None = None
    recurring: Recurring | None = None
    tiers: tuple[Tier, ...] = ()
    tiers_mode: TiersMode | None = None
    transform_quantity: TransformQuantity | None = None
    lookup_key: str | None = None
    transfer_lookup_key: bool = False
    tax_behavior: TaxBehavior = "unspecified"
    currency_options: tuple[CurrencyOption, ...] = ()
    metadata: Metadata = {}


class UpdatePrice(Command, frozen=True, kw_only=True):
    id: str
    active: bool | UnsetType = UNSET
    nickname: str | UnsetType | None = UNSET
    lookup_key: str | UnsetType | None = UNSET
    transfer_lookup_key: bool = False
    tax_behavior: TaxBehavior | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET
    etag: str | None = None


class CreateMeter(Command, frozen=True, kw_only=True):
    display_name: str
    event_name: str
    formula: MeterFormula
    event_time_window: MeterWindow | None = None
    metadata: Metadata = {}


class UpdateMeter(Command, frozen=True, kw_only=True):
    id: str
    display_name: str | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET
    etag: str | None = None


class DeactivateMeter(Command, frozen=True, kw_only=True):
    id: str


class ReactivateMeter(Command, frozen=True, kw_only=True):
    id: str


class CreateAutomation(Command, frozen=True, kw_only=True):
    name: str
    trigger: Trigger
    conditions: tuple[Condition, ...] = ()
    actions: tuple[Action, ...] = ()
    enabled: bool = True
    priority: int | None = None
    metadata: Metadata = {}


class CreateAutomationFromRecipe(Command, frozen=True, kw_only=True):
    recipe: str
    parameters: RecipeParameters = RecipeParameters()
    name: str | None = None
    enabled: bool = True
    priority: int | None = None
    metadata: Metadata = {}


class UpdateAutomation(Command, frozen=True, kw_only=True):
    id: str
    name: str | UnsetType = UNSET
    conditions: tuple[Condition, ...] | UnsetType = UNSET
    actions: tuple[Action, ...] | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET
    etag: str | None = None


class DeleteAutomation(Command, frozen=True, kw_only=True):
    id: str
    runs_in_flight: RunsInFlight = "let_finish"
    etag: str | None = None


class EnableAutomation(Command, frozen=True, kw_only=True):
    id: str


class DisableAutomation(Command, frozen=True, kw_only=True):
    id: str
    runs_in_flight: RunsInFlight = "let_finish"


class ReorderAutomations(Command, frozen=True, kw_only=True):
    trigger: Trigger
    ids: tuple[str, ...] = ()


# --- customers


class CreateCustomer(Command, frozen=True, kw_only=True):
    email: str | None = None
    name: str | None = None
    phone: str | None = None
    description: str | None = None
    address: Address | None = None
    shipping: Shipping | None = None
    preferred_locale: str | None = None
    balance: int = 0
    currency: str | None = None
    invoice_prefix: str | None = None
    next_invoice_sequence: int | None = None
    tax_exempt: TaxExempt = "none"
    metadata: Metadata = {}
    test_clock: str | None = None


class UpdateCustomer(Command, frozen=True, kw_only=True):
    id: str
    email: str | UnsetType | None = UNSET
    name: str | UnsetType | None = UNSET
    phone: str | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET
    address: Address | UnsetType | None = UNSET
    shipping: Shipping | UnsetType | None = UNSET
    preferred_locale: str | UnsetType | None = UNSET
    default_payment_method: str | UnsetType | None = UNSET
    next_invoice_sequence: int | UnsetType = UNSET
    invoice_prefix: str | UnsetType = UNSET
    tax_exempt: TaxExempt | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET
    etag: str | None = None


class DeleteCustomer(Command, frozen=True, kw_only=True):
    id: str
    etag: str | None = None


class AttachPaymentMethod(Command, frozen=True, kw_only=True):
    customer: str
    token: str
    type: PaymentMethodType = "card"
    card: Card | None = None
    billing_name: str | None = None
    billing_email: str | None = None
    set_default: bool = False
    metadata: Metadata = {}


class UpdatePaymentMethod(Command, frozen=True, kw_only=True):
    id: str
    billing_name: str | UnsetType | None = UNSET
    billing_email: str | UnsetType | None = UNSET
    exp_month: int | UnsetType = UNSET
    exp_year: int | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET
    etag: str | None = None


class DetachPaymentMethod(Command, frozen=True, kw_only=True):
    id: str


class AdjustBalance(Command, frozen=True, kw_only=True):
    customer: str
    amount: int
    currency: str | None = None
    description: str | None = None
    metadata: Metadata = {}


# --- subscriptions


class ItemParams(msgspec.Struct, frozen=True, kw_only=True):
    """An item of a new subscription."""

    price: str
    quantity: int | None = None
    metadata: Metadata = {}


class ItemChange(msgspec.Struct, frozen=True, kw_only=True):
    """A change of one item: by `id`, or a new one without. A new price without a quantity resets it to 1."""

    id: str | None = None
    price: str | None = None
    quantity: int | None = None
    deleted: bool = False
    metadata: Metadata | UnsetType = UNSET


class CreateSubscription(Command, frozen=True, kw_only=True, tag=True):
    customer: str
    items: tuple[ItemParams, ...] = ()
    currency: str | None = None
    collection_method: CollectionMethod = "charge_automatically"
    days_until_due: int | None = None
    payment_behavior: PaymentBehavior = "allow_incomplete"
    proration_behavior: ProrationBehavior = "create_prorations"
    billing_cycle_anchor: int | None = None
    billing_cycle_anchor_config: AnchorConfig | None = None
    billing_mode: BillingMode = "classic"
    backdate_start_date: int | None = None
    cancel_at: int | None = None
    cancel_at_period_end: bool = False
    trial_end: int | None = None
    trial_period_days: int | None = None
    trial_from_plan: bool = False
    missing_payment_method: MissingPaymentMethod = "create_invoice"
    default_payment_method: str | None = None
    save_default_payment_method: SaveDefaultPaymentMethod = "off"
    off_session: bool = False
    add_invoice_items: tuple[AddedInvoiceItem, ...] = ()
    pending_invoice_item_interval: PendingInvoiceItemInterval | None = None
    description: str | None = None
    metadata: Metadata = {}


class UpdateSubscription(Command, frozen=True, kw_only=True, tag=True):
    id: str
    items: tuple[ItemChange, ...] | UnsetType = UNSET
    payment_behavior: PaymentBehavior = "allow_incomplete"
    proration_behavior: ProrationBehavior = "create_prorations"
    proration_date: int | None = None
    billing_cycle_anchor_now: bool = False
    trial_end: int | UnsetType = UNSET
    trial_end_now: bool = False
    trial_from_plan: bool = False
    missing_payment_method: MissingPaymentMethod | UnsetType = UNSET
    collection_method: CollectionMethod | UnsetType = UNSET
    days_until_due: int | UnsetType | None = UNSET
    cancel_at: int | UnsetType | None = UNSET
    cancel_at_period_end: bool | UnsetType = UNSET
    cancellation_comment: str | UnsetType | None = UNSET
    cancellation_feedback: CancellationFeedback | UnsetType | None = UNSET
    pause_collection: PauseCollection | UnsetType | None = UNSET
    default_payment_method: str | UnsetType | None = UNSET
    save_default_payment_method: SaveDefaultPaymentMethod | UnsetType = UNSET
    off_session: bool | UnsetType = UNSET
    add_invoice_items: tuple[AddedInvoiceItem, ...] = ()
    pending_invoice_item_interval: PendingInvoiceItemInterval | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET
    metadata: Metadata | UnsetType = UNSET
    etag: str | None = None


class CancelSubscription(Command, frozen=True, kw_only=True):
    id: str
    invoice_now: bool = False
    prorate: bool = False
    comment: str | None = None
    feedback: CancellationFeedback | None = None


class ResumeSubscription(Command, frozen=True, kw_only=True):
    id: str
    billing_cycle_anchor: ResumeAnchor = "now"
    proration_behavior: ProrationBehavior = "create_prorations"
    proration_date: int | None = None


# --- subscription schedules


class PhaseDuration(msgspec.Struct, frozen=True, kw_only=True):
    """How long a phase lasts, by the calendar."""

    interval: Interval
    interval_count: int = 1


class PhaseParams(msgspec.Struct, frozen=True, kw_only=True):
    """A phase as it is asked for: its end by a date, by a number of billing periods, or by its length."""

    items: tuple[PhaseItem, ...] = ()
    start_date: int | None = None
    end_date: int | None = None
    iterations: int | None = None
    duration: PhaseDuration | None = None
    trial: bool = False
    trial_end: int | None = None
    proration_behavior: ProrationBehavior = "create_prorations"
    billing_cycle_anchor: PhaseAnchor = "automatic"
    collection_method: CollectionMethod | None = None
    days_until_due: int | None = None
    default_payment_method: str | None = None
    add_invoice_items: tuple[AddedInvoiceItem, ...] = ()
    description: str | None = None
    metadata: Metadata = {}


class CreateSubscriptionSchedule(Command, frozen=True, kw_only=True):
    customer: str | None = None
    from_subscription: str | None = None
    start_date: int | None = None
    phases: tuple[PhaseParams, ...] = ()
    end_behavior: EndBehavior = "release"
    default_settings: ScheduleDefaults | None = None
    metadata: Metadata = {}


class UpdateSubscriptionSchedule(Command, frozen=True, kw_only=True):
    id: str
    phases: tuple[PhaseParams, ...] | UnsetType = UNSET
    end_behavior: EndBehavior | UnsetType = UNSET
    default_settings: ScheduleDefaults | UnsetType = UNSET
    proration_behavior: ProrationBehavior = "create_prorations"
    metadata: Metadata | UnsetType = UNSET
    etag: str | None = None


class CancelSubscriptionSchedule(Command, frozen=True, kw_only=True):
    id: str
    invoice_now: bool = True
    prorate: bool = True


class ReleaseSubscriptionSchedule(Command, frozen=True, kw_only=True):
    id: str
    preserve_cancel_date: bool = False


# --- invoices, items, credit notes


class CreateInvoice(Command, frozen=True, kw_only=True):
    customer: str
    subscription: str | None = None
    currency: str | None = None
    collection_method: CollectionMethod = "charge_automatically"
    days_until_due: int | None = None
    due_date: int | None = None
    auto_advance: bool = False
    pending_invoice_items_behavior: PendingItemsBehavior = "exclude"
    default_payment_method: str | None = None
    statement_descriptor: str | None = None
    description: str | None = None
    footer: str | None = None
    metadata: Metadata = {}


class UpdateInvoice(Command, frozen=True, kw_only=True):
    id: str
    auto_advance: bool | UnsetType = UNSET
    collection_method: CollectionMethod | UnsetType = UNSET
    days_until_due: int | UnsetType | None = UNSET
    due_date: int | UnsetType | None = UNSET
    default_payment_method: str | UnsetType | None = UNSET
    statement_descriptor: str | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET
    footer: str | UnsetType | None = UNSET
    metadata: Metadata | UnsetType = UNSET
    etag: str | None = None


class DeleteInvoice(Command, frozen=True, kw_only=True):
    id: str


class FinalizeInvoice(Command, frozen=True, kw_only=True):
    id: str
    auto_advance: bool | None = None


class PayInvoice(Command, frozen=True, kw_only=True):
    id: str
    payment_method: str | None = None
    paid_out_of_band: bool = False
    off_session: bool = True
    forgive: bool = False


class SendInvoice(Command, frozen=True, kw_only=True):
    id: str


class VoidInvoice(Command, frozen=True, kw_only=True):
    id: str


class MarkInvoiceUncollectible(Command, frozen=True, kw_only=True):
    id: str


class CreateInvoiceItem(Command, frozen=True, kw_only=True):
    customer: str
    amount: int | None = None
    unit_amount: int | None = None
    quantity: int = 1
    price: str | None = None
    currency: str | None = None
    description: str | None = None
    invoice: str | None = None
    subscription: str | None = None
    discountable: bool = True
    period_start: int | None = None
    period_end: int | None = None
    metadata: Metadata = {}


class UpdateInvoiceItem(Command, frozen=True, kw_only=True):
    id: str
    amount: int | UnsetType = UNSET
    unit_amount: int | UnsetType = UNSET
    quantity: int | UnsetType = UNSET
    description: str | UnsetType | None = UNSET
    discountable: bool | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET
    etag: str | None = None


class DeleteInvoiceItem(Command, frozen=True, kw_only=True):
    id: str


class CreateCreditNote(Command, frozen=True, kw_only=True):
    invoice: str
    amount: int
    refund_amount: int = 0
    credit_amount: int = 0
    out_of_band_amount: int = 0
    reason: CreditNoteReason | None = None
    memo: str | None = None
    metadata: Metadata = {}


class VoidCreditNote(Command, frozen=True, kw_only=True):
    id: str


# --- payments


class ConfirmPaymentIntent(Command, frozen=True, kw_only=True):
    id: str
    payment_method: str | None = None
    off_session: bool = False


class CreateRefund(Command, frozen=True, kw_only=True):
    payment_intent: str
    amount: int | None = None
    reason: RefundReason = "requested_by_customer"
    metadata: Metadata = {}


# --- webhooks


class CreateWebhookEndpoint(Command, frozen=True, kw_only=True):
    url: str
    event_types: tuple[str, ...] = ()
    description: str | None = None
    metadata: Metadata = {}


class UpdateWebhookEndpoint(Command, frozen=True, kw_only=True):
    id: str
    url: str | UnsetType = UNSET
    event_types: tuple[str, ...] | UnsetType = UNSET
    description: str | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET
    etag: str | None = None


class DeleteWebhookEndpoint(Command, frozen=True, kw_only=True):
    id: str


class RotateWebhookSecret(Command, frozen=True, kw_only=True):
    id: str
    grace_seconds: int = 86_400


class RedeliverWebhookDelivery(Command, frozen=True, kw_only=True):
    id: str


# --- automation runs


class CancelAutomationRun(Command, frozen=True, kw_only=True):
    id: str


# --- commands the engine gives itself


class ChargeOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway said of a charge, or that it said nothing (`unknown`)."""

    state: Literal["succeeded", "failed", "requires_action", "unknown", "not_found"]
    error: PaymentError | None = None
    gateway_reference: str | None = None


class SettleAttempt(Command, frozen=True, kw_only=True):
    """The outcome of a charge comes back."""

    customer: str
    invoice: str
    subscription: str | None
    attempt: str
    outcome: ChargeOutcome


class RefundOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway said of a refund, or that it said nothing (`unknown`)."""

    state: Literal["succeeded", "failed", "unknown", "not_found"]
    gateway_reference: str | None = None
    failure_message: str | None = None


class SettleRefund(Command, frozen=True, kw_only=True):
    """The outcome of a refund comes back."""

    customer: str
    invoice: str
    refund: str
    outcome: RefundOutcome
