package example;

import billing.v1.AttachPaymentMethodRequest;
import billing.v1.CatalogServiceGrpc;
import billing.v1.CreateCustomerRequest;
import billing.v1.CreatePriceRequest;
import billing.v1.CreateProductRequest;
import billing.v1.CreateSubscriptionRequest;
import billing.v1.Customer;
import billing.v1.CustomerServiceGrpc;
import billing.v1.ErrorReason;
import billing.v1.Event;
import billing.v1.EventBatch;
import billing.v1.EventServiceGrpc;
import billing.v1.GetCustomerRequest;
import billing.v1.Interval;
import billing.v1.ItemParams;
import billing.v1.ListProductsRequest;
import billing.v1.ListSubscriptionsRequest;
import billing.v1.PaymentBehavior;
import billing.v1.PaymentMethod;
import billing.v1.Price;
import billing.v1.PriceType;
import billing.v1.Product;
import billing.v1.Recurring;
import billing.v1.StreamEventsRequest;
import billing.v1.Subscription;
import billing.v1.SubscriptionServiceGrpc;
import billing.v1.SubscriptionStatus;
import com.google.rpc.BadRequest.FieldViolation;
import io.grpc.CallCredentials;
import io.grpc.Channel;
import io.grpc.Context;
import io.grpc.Metadata;
import io.grpc.Status.Code;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.stub.AbstractStub;
import io.grpc.stub.MetadataUtils;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;

/** The steps, and what they hand on to later ones. */
final class Example {
    private static final int DEADLINE_SECONDS = 30;
    private static final Metadata.Key<String> IDEMPOTENCY_KEY =
            Metadata.Key.of("idempotency-key", Metadata.ASCII_STRING_MARSHALLER);

    /** Does one thing with the engine and tells what it saw. */
    interface Step {
        String take() throws Exception;
    }

    private final Channel channel;
    private final String key;
    private Price price;
    private Customer customer;
    private Subscription subscription;
    private long lastPosition;

    Example(Channel channel, String key) {
        this.channel = channel;
        this.key = key;
    }

    Map<String, Step> steps() {
        Map<String, Step> steps = new LinkedHashMap<>();
        steps.put("health", this::checkHealth);
        steps.put("wrong key", this::showWrongKey);
        steps.put("catalog", this::fillCatalog);
        steps.put("customer", this::createPayingCustomer);
        steps.put("subscription", this::subscribe);
        steps.put("decline", this::subscribeWithDeclinedCard);
        steps.put("violations", this::sendBadRequest);
        steps.put("stream", this::readAllEvents);
        steps.put("resume", this::resumeReading);
        steps.put("filter", this::readFilteredEvents);
        steps.put("deadline", this::letDeadlinePass);
        return steps;
    }

    /** A stub that shows the key and gives its next call a deadline: make one for each call. */
    private <S extends AbstractStub<S>> S call(Function<Channel, S> newStub) {
        return newStub.apply(channel)
                .withCallCredentials(new Bearer(key))
                .withDeadlineAfter(DEADLINE_SECONDS, TimeUnit.SECONDS);
    }

    private CatalogServiceGrpc.CatalogServiceBlockingStub catalog() {
        return call(CatalogServiceGrpc::newBlockingStub);
    }

    private CustomerServiceGrpc.CustomerServiceBlockingStub customers() {
        return call(CustomerServiceGrpc::newBlockingStub);
    }

    private SubscriptionServiceGrpc.SubscriptionServiceBlockingStub subscriptions() {
        return call(SubscriptionServiceGrpc::newBlockingStub);
    }

    private EventServiceGrpc.EventServiceBlockingStub events() {
        return call(EventServiceGrpc::newBlockingStub);
    }

    private String checkHealth() {
        for (String service : List.of("", "billing.v1.SubscriptionService")) {
            var request = HealthCheckRequest.newBuilder().setService(service).build();
            ServingStatus status = call(HealthGrpc::newBlockingStub).check(request).getStatus();
            Expect.equal("health of '" + service + "'", ServingStatus.SERVING, status);
        }
        return "serving";
    }

    private String showWrongKey() throws Exception {
        var stub = catalog().withCallCredentials(new Bearer("not-a-key"));
        Refusal refusal = Refusal.of(
                () -> stub.listProducts(ListProductsRequest.getDefaultInstance()),
                Code.UNAUTHENTICATED,
                ErrorReason.ERROR_REASON_UNAUTHENTICATED);
        return refusal.info().getReason();
    }

    private String fillCatalog() {
        Product product = catalog().createProduct(
                CreateProductRequest.newBuilder().setName("Gold plan").build());
        price = catalog().createPrice(CreatePriceRequest.newBuilder()
                .setProduct(product.getId())
                .setCurrency("usd")
                .setUnitAmount("1000")
                .setRecurring(Recurring.newBuilder().setInterval(Interval.INTERVAL_MONTH))
                .build());
        Expect.equal("type", PriceType.PRICE_TYPE_RECURRING, price.getType());
        Expect.equal("interval count", 1, price.getRecurring().getIntervalCount());
        return product.getId() + " at " + price.getId();
    }

    private Customer createCustomer(String name) {
        return customers().createCustomer(CreateCustomerRequest.newBuilder()
                .setName(name)
                .putMetadata("language", "java")
                .build());
    }

    private PaymentMethod attach(Customer owner, String token) {
        return customers().attachPaymentMethod(AttachPaymentMethodRequest.newBuilder()
                .setCustomer(owner.getId())
                .setToken(token)
                .setSetDefault(true)
                .build());
    }

    private String createPayingCustomer() {
        String id = createCustomer("Jenny Rosen").getId();
        PaymentMethod method = attach(Customer.newBuilder().setId(id).build(), "pm_card_visa");
        customer = customers().getCustomer(GetCustomerRequest.newBuilder().setId(id).build());
        Expect.equal("default payment method", method.getId(), customer.getDefaultPaymentMethod());
        Expect.equal("metadata", Map.of("language", "java"), customer.getMetadataMap());
        return id + " pays with " + method.getId();
    }

    private String subscribe() {
        var request = CreateSubscriptionRequest.newBuilder()
                .setCustomer(customer.getId())
                .addItems(ItemParams.newBuilder().setPrice(price.getId()).setQuantity(2))
                .build();
        Metadata metadata = new Metadata();
        metadata.put(IDEMPOTENCY_KEY, UUID.randomUUID().toString());
        var once = MetadataUtils.newAttachHeadersInterceptor(metadata);
        subscription = subscriptions().withInterceptors(once).createSubscription(request);
        Subscription again = subscriptions().withInterceptors(once).createSubscription(request);
        Expect.equal("response to the same key", subscription, again);
        Expect.equal("status", SubscriptionStatus.SUBSCRIPTION_STATUS_ACTIVE, subscription.getStatus());
        Expect.equal("items", 1, subscription.getItemsCount());
        Expect.equal("quantity", 2L, subscription.getItems(0).getQuantity());
        Instant end = Instant.ofEpochSecond(subscription.getCurrentPeriodEnd().getSeconds());
        long days = Duration.between(Instant.now(), end).toDays();
        Expect.that(days >= 27 && days < 32, "expected a period of a month, but it ends on " + end);
        Expect.equal("subscriptions", 1, subscriptionsOf(customer).size());
        return subscription.getId() + " is active, and the same for the same idempotency key";
    }

    private List<Subscription> subscriptionsOf(Customer owner) {
        var request = ListSubscriptionsRequest.newBuilder()
                .setCustomer(owner.getId())
                .setIncludeEnded(true)
                .build();
        return subscriptions().listSubscriptions(request).getSubscriptionsList();
    }

    private String subscribeWithDeclinedCard() throws Exception {
        Customer declined = createCustomer("Poor Charlie");
        attach(declined, "pm_card_visa_chargeDeclinedInsufficientFunds");
        var request = CreateSubscriptionRequest.newBuilder()
                .setCustomer(declined.getId())
                .addItems(ItemParams.newBuilder().setPrice(price.getId()))
                .setPaymentBehavior(PaymentBehavior.PAYMENT_BEHAVIOR_ERROR_IF_INCOMPLETE)
                .build();
        Refusal refusal = Refusal.of(
                () -> subscriptions().createSubscription(request),
                Code.FAILED_PRECONDITION,
                ErrorReason.ERROR_REASON_CARD_DECLINED);
        String declineCode = refusal.info().getMetadataMap().get("decline_code");
        Expect.equal("decline code", "insufficient_funds", declineCode);
        Expect.equal("subscriptions after the refusal", List.of(), subscriptionsOf(declined));
        return refusal.info().getReason() + " with " + declineCode;
    }

    private String sendBadRequest() throws Exception {
        var request = CreatePriceRequest.newBuilder()
                .setCurrency("usd")
                .setUnitAmount("ten")
                .build();
        Refusal refusal = Refusal.of(() -> catalog().createPrice(request), Code.INVALID_ARGUMENT);
        List<FieldViolation> violations = refusal.badRequest().getFieldViolationsList();
        for (FieldViolation violation : violations) {
            boolean complete = !violation.getDescription().isEmpty() && !violation.getReason().isEmpty();
            Expect.that(complete, "a violation without description or reason: " + violation);
        }
        List<String> fields = violations.stream().map(FieldViolation::getField).sorted().toList();
        Expect.equal("fields", List.of("product", "unit_amount"), fields);
        return String.join(", ", fields);
    }

    /** Reads a stream in a context of its own, whose end disconnects it. */
    private <T> T read(StreamEventsRequest request, Function<Iterator<EventBatch>, T> reader) throws Exception {
        try (Context.CancellableContext connection = Context.current().withCancellation()) {
            return connection.call(() -> reader.apply(events().streamEvents(request)));
        }
    }

    private String readAllEvents() throws Exception {
        var request = StreamEventsRequest.newBuilder().setAfterPosition(0).setBatchMax(5).build();
        Events all = read(request, Events::untilCaughtUp);
        lastPosition = all.withoutGapAfter(0);
        return all.found().size() + " events without a gap, then caught up";
    }

    private String resumeReading() throws Exception {
        List<Customer> missed = new ArrayList<>();
        for (String name : List.of("Ada", "Grace", "Edsger")) {
            missed.add(createCustomer(name));
        }
        var request = StreamEventsRequest.newBuilder().setAfterPosition(lastPosition).build();
        return read(request, batches -> {
            Events resumed = Events.untilCaughtUp(batches);
            lastPosition = resumed.withoutGapAfter(lastPosition);
            expectCreated(resumed, missed);
            Customer barbara = createCustomer("Barbara");
            Events live = Events.untilCaughtUp(batches);
            lastPosition = live.withoutGapAfter(lastPosition);
            expectCreated(live, List.of(barbara));
            return resumed.found().size() + " events that were missed, then " + live.found().size() + " live";
        });
    }

    private static void expectCreated(Events events, List<Customer> customers) {
        for (Event event : events.found()) {
            Expect.equal("type of " + event, "customer.created", event.getType());
            Expect.equal("object of " + event, Event.ObjectCase.CUSTOMER_OBJECT, event.getObjectCase());
        }
        Expect.equal(
                "created customers",
                customers.stream().map(Customer::getId).toList(),
                events.found().stream().map(event -> event.getCustomerObject().getId()).toList());
    }

    private String readFilteredEvents() throws Exception {
        var request = StreamEventsRequest.newBuilder().addTypes("customer.subscription.*").build();
        Events filtered = read(request, Events::untilCaughtUp);
        for (Event event : filtered.found()) {
            boolean wanted = event.getType().startsWith("customer.subscription.");
            Expect.that(wanted, "the filter let through " + event.getType());
        }
        long created = filtered.found().stream()
                .filter(event -> event.getType().equals("customer.subscription.created"))
                .filter(event -> event.getSubscription().getId().equals(subscription.getId()))
                .count();
        Expect.equal("creations of " + subscription.getId(), 1L, created);
        Expect.equal("head of the log", lastPosition, filtered.headPosition());
        return filtered.found().size() + " of " + filtered.headPosition() + " events";
    }

    private String letDeadlinePass() throws Exception {
        long patience = 500;
        var request = StreamEventsRequest.newBuilder().setAfterPosition(lastPosition).build();
        long started = System.nanoTime();
        Iterator<EventBatch> batches =
                events().withDeadlineAfter(patience, TimeUnit.MILLISECONDS).streamEvents(request);
        Expect.statusCode(Code.DEADLINE_EXCEEDED, () -> {
            while (batches.hasNext()) {
                batches.next();
            }
            return "the end of the stream";
        });
        long waited = TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - started);
        boolean punctual = waited > 0.9 * patience && waited < 60 * patience;
        Expect.that(punctual, "a deadline of " + patience + " ms ended after " + waited + " ms");
        return "a stream ended with DEADLINE_EXCEEDED";
    }

    /** Shows the API key with every call of a stub. */
    private static final class Bearer extends CallCredentials {
        private static final Metadata.Key<String> AUTHORIZATION =
                Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);
        private final Metadata metadata = new Metadata();

        Bearer(String key) {
            metadata.put(AUTHORIZATION, "Bearer " + key);
        }

        @Override
        public void applyRequestMetadata(RequestInfo request, Executor executor, MetadataApplier applier) {
            applier.apply(metadata);
        }
    }
}
