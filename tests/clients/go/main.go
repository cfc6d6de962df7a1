// Calls the billing engine from Go: subscriptions, refusals with their details, and the stream of events.
//
// Prints a line for each step. The first surprise ends the program with status 1 and says what was expected.
package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	billing "example/billing/v1"
)

const callDeadline = 30 * time.Second

func main() {
	target, key := os.Getenv("BILLING_TARGET"), os.Getenv("BILLING_API_KEY")
	if target == "" || key == "" {
		fail(fmt.Errorf("set BILLING_TARGET to HOST:PORT and BILLING_API_KEY to a key of the engine"))
	}
	// Keys travel in plaintext here: right on loopback only. Elsewhere use credentials.NewTLS.
	connection, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fail(err)
	}
	defer connection.Close()
	if err := newExample(connection, key).run(); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "surprise:", err)
	os.Exit(1)
}

// example holds the stubs and what its steps hand on to later ones.
type example struct {
	health        grpc_health_v1.HealthClient
	catalog       billing.CatalogServiceClient
	customers     billing.CustomerServiceClient
	subscriptions billing.SubscriptionServiceClient
	events        billing.EventServiceClient

	authorized   context.Context
	price        *billing.Price
	customer     *billing.Customer
	subscription *billing.Subscription
	lastPosition int64
}

func newExample(connection *grpc.ClientConn, key string) *example {
	return &example{
		health:        grpc_health_v1.NewHealthClient(connection),
		catalog:       billing.NewCatalogServiceClient(connection),
		customers:     billing.NewCustomerServiceClient(connection),
		subscriptions: billing.NewSubscriptionServiceClient(connection),
		events:        billing.NewEventServiceClient(connection),
		authorized:    withKey(key),
	}
}

func withKey(key string) context.Context {
	return metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+key)
}

func (e *example) run() error {
	steps := []struct {
		name string
		take func() (string, error)
	}{
		{"health", e.checkHealth},
		{"wrong key", e.showWrongKey},
		{"catalog", e.fillCatalog},
		{"customer", e.createPayingCustomer},
		{"subscription", e.subscribe},
		{"decline", e.subscribeWithDeclinedCard},
		{"violations", e.sendBadRequest},
		{"stream", e.readAllEvents},
		{"resume", e.resumeReading},
		{"filter", e.readFilteredEvents},
		{"deadline", e.letDeadlinePass},
	}
	for _, step := range steps {
		told, err := step.take()
		if err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		fmt.Printf("%s: %s\n", step.name, told)
	}
	return nil
}

// call sends one unary request with a deadline.
func call[Request, Response any](
	ctx context.Context,
	method func(context.Context, Request, ...grpc.CallOption) (Response, error),
	request Request,
) (Response, error) {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	return method(ctx, request)
}

func (e *example) checkHealth() (string, error) {
	for _, service := range []string{"", "billing.v1.SubscriptionService"} {
		request := &grpc_health_v1.HealthCheckRequest{Service: service}
		answer, err := call(context.Background(), e.health.Check, request)
		if err != nil {
			return "", err
		}
		if answer.Status != grpc_health_v1.HealthCheckResponse_SERVING {
			return "", fmt.Errorf("service %q is %s", service, answer.Status)
		}
	}
	return "serving", nil
}

func (e *example) showWrongKey() (string, error) {
	request := &billing.ListProductsRequest{}
	_, err := call(withKey("not-a-key"), e.catalog.ListProducts, request)
	refusal, err := expectRefusal(err, codes.Unauthenticated, billing.ErrorReason_ERROR_REASON_UNAUTHENTICATED)
	if err != nil {
		return "", err
	}
	return refusal.info.Reason, nil
}

func (e *example) fillCatalog() (string, error) {
	product, err := call(e.authorized, e.catalog.CreateProduct, &billing.CreateProductRequest{Name: "Gold plan"})
	if err != nil {
		return "", err
	}
	e.price, err = call(e.authorized, e.catalog.CreatePrice, &billing.CreatePriceRequest{
		Product:    product.Id,
		Currency:   "usd",
		UnitAmount: "1000",
		Recurring:  &billing.Recurring{Interval: billing.Interval_INTERVAL_MONTH},
	})
	if err != nil {
		return "", err
	}
	if e.price.Type != billing.PriceType_PRICE_TYPE_RECURRING || e.price.Recurring.GetIntervalCount() != 1 {
		return "", fmt.Errorf("expected a price for each month, got %v", e.price)
	}
	return product.Id + " at " + e.price.Id, nil
}

func (e *example) createCustomer(name string) (*billing.Customer, error) {
	return call(e.authorized, e.customers.CreateCustomer, &billing.CreateCustomerRequest{
		Name:     name,
		Metadata: map[string]string{"language": "go"},
	})
}

func (e *example) attach(customer *billing.Customer, token string) (*billing.PaymentMethod, error) {
	return call(e.authorized, e.customers.AttachPaymentMethod, &billing.AttachPaymentMethodRequest{
		Customer:   customer.Id,
		Token:      token,
		SetDefault: true,
	})
}

func (e *example) createPayingCustomer() (string, error) {
	var err error
	if e.customer, err = e.createCustomer("Jenny Rosen"); err != nil {
		return "", err
	}
	method, err := e.attach(e.customer, "pm_card_visa")
	if err != nil {
		return "", err
	}
	request := &billing.GetCustomerRequest{Id: e.customer.Id}
	if e.customer, err = call(e.authorized, e.customers.GetCustomer, request); err != nil {
		return "", err
	}
	if e.customer.DefaultPaymentMethod != method.Id || e.customer.Metadata["language"] != "go" {
		return "", fmt.Errorf("expected metadata and the default payment method %s, got %v", method.Id, e.customer)
	}
	return e.customer.Id + " pays with " + method.Id, nil
}

func (e *example) subscribe() (string, error) {
	request := &billing.CreateSubscriptionRequest{
		Customer: e.customer.Id,
		Items:    []*billing.ItemParams{{Price: e.price.Id, Quantity: proto.Int64(2)}},
	}
	once := metadata.AppendToOutgoingContext(e.authorized, "idempotency-key", rand.Text())
	var err error
	if e.subscription, err = call(once, e.subscriptions.CreateSubscription, request); err != nil {
		return "", err
	}
	again, err := call(once, e.subscriptions.CreateSubscription, request)
	if err != nil {
		return "", err
	}
	if !proto.Equal(e.subscription, again) {
		return "", fmt.Errorf("the same key gave %v, then %v", e.subscription, again)
	}
	if e.subscription.Status != billing.SubscriptionStatus_SUBSCRIPTION_STATUS_ACTIVE {
		return "", fmt.Errorf("expected an active subscription, got %s", e.subscription.Status)
	}
	if len(e.subscription.Items) != 1 || e.subscription.Items[0].GetQuantity() != 2 {
		return "", fmt.Errorf("expected one item with the quantity 2, got %v", e.subscription.Items)
	}
	end := e.subscription.CurrentPeriodEnd.AsTime()
	if days := time.Until(end).Hours() / 24; days < 27 || days > 32 {
		return "", fmt.Errorf("expected a period of a month, but it ends on %s", end)
	}
	listed, err := e.subscriptionsOf(e.customer)
	if err != nil {
		return "", err
	}
	if len(listed) != 1 {
		return "", fmt.Errorf("expected one subscription of the customer, got %d", len(listed))
	}
	return e.subscription.Id + " is active, and the same for the same idempotency key", nil
}

func (e *example) subscriptionsOf(customer *billing.Customer) ([]*billing.Subscription, error) {
	request := &billing.ListSubscriptionsRequest{Customer: customer.Id, IncludeEnded: true}
	page, err := call(e.authorized, e.subscriptions.ListSubscriptions, request)
	return page.GetSubscriptions(), err
}

func (e *example) subscribeWithDeclinedCard() (string, error) {
	customer, err := e.createCustomer("Poor Charlie")
	if err != nil {
		return "", err
	}
	if _, err = e.attach(customer, "pm_card_visa_chargeDeclinedInsufficientFunds"); err != nil {
		return "", err
	}
	_, err = call(e.authorized, e.subscriptions.CreateSubscription, &billing.CreateSubscriptionRequest{
		Customer:        customer.Id,
		Items:           []*billing.ItemParams{{Price: e.price.Id}},
		PaymentBehavior: billing.PaymentBehavior_PAYMENT_BEHAVIOR_ERROR_IF_INCOMPLETE,
	})
	refusal, err := expectRefusal(err, codes.FailedPrecondition, billing.ErrorReason_ERROR_REASON_CARD_DECLINED)
	if err != nil {
		return "", err
	}
	declineCode := refusal.info.Metadata["decline_code"]
	if declineCode != "insufficient_funds" {
		return "", fmt.Errorf("expected the decline code insufficient_funds, got %v", refusal.info.Metadata)
	}
	listed, err := e.subscriptionsOf(customer)
	if err != nil {
		return "", err
	}
	if len(listed) != 0 {
		return "", fmt.Errorf("a refused request left %v", listed)
	}
	return refusal.info.Reason + " with " + declineCode, nil
}

func (e *example) sendBadRequest() (string, error) {
	_, err := call(e.authorized, e.catalog.CreatePrice, &billing.CreatePriceRequest{
		Currency:   "usd",
		UnitAmount: "ten",
	})
	code := status.Code(err)
	refusal := decode(err)
	if code != codes.InvalidArgument || refusal.badRequest == nil {
		return "", fmt.Errorf("expected INVALID_ARGUMENT with violations, got %v", err)
	}
	var fields []string
	for _, violation := range refusal.badRequest.FieldViolations {
		if violation.Description == "" || violation.Reason == "" {
			return "", fmt.Errorf("a violation without description or reason: %v", violation)
		}
		fields = append(fields, violation.Field)
	}
	slices.Sort(fields)
	if !slices.Equal(fields, []string{"product", "unit_amount"}) {
		return "", fmt.Errorf("expected violations of product and unit_amount, got %v", fields)
	}
	return strings.Join(fields, ", "), nil
}

// refusal is what the details of a status tell.
type refusal struct {
	info       *errdetails.ErrorInfo
	badRequest *errdetails.BadRequest
}

func decode(err error) refusal {
	found := refusal{info: &errdetails.ErrorInfo{}}
	for _, detail := range status.Convert(err).Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			found.info = detail
		case *errdetails.BadRequest:
			found.badRequest = detail
		}
	}
	return found
}

func expectRefusal(err error, code codes.Code, reason billing.ErrorReason) (refusal, error) {
	found := decode(err)
	name := strings.TrimPrefix(reason.String(), "ERROR_REASON_")
	if status.Code(err) != code || found.info.Reason != name || found.info.Domain != "billing.v1" {
		return found, fmt.Errorf("expected %s for %s, got %v with %v", code, name, err, found.info)
	}
	return found, nil
}

// stream is an open stream of events; close it to disconnect.
type stream struct {
	receive func() (*billing.EventBatch, error)
	close   context.CancelFunc
}

func (e *example) open(request *billing.StreamEventsRequest, deadline time.Duration) (*stream, error) {
	ctx, cancel := context.WithTimeout(e.authorized, deadline)
	batches, err := e.events.StreamEvents(ctx, request)
	if err != nil {
		cancel()
		return nil, err
	}
	return &stream{receive: batches.Recv, close: cancel}, nil
}

// untilCaughtUp reads all events there are, and returns them with the head position of the log.
func (s *stream) untilCaughtUp() ([]*billing.Event, int64, error) {
	var events []*billing.Event
	for {
		batch, err := s.receive()
		if err != nil {
			return nil, 0, err
		}
		events = append(events, batch.Events...)
		if batch.CaughtUp {
			return events, batch.HeadPosition, nil
		}
	}
}

func (e *example) readAllEvents() (string, error) {
	reader, err := e.open(&billing.StreamEventsRequest{AfterPosition: 0, BatchMax: 5}, callDeadline)
	if err != nil {
		return "", err
	}
	defer reader.close()
	events, head, err := reader.untilCaughtUp()
	if err != nil {
		return "", err
	}
	if err := e.takeWithoutGap(events, head); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d events without a gap, then caught up", len(events)), nil
}

// takeWithoutGap moves the last position on, event by event, to the head.
func (e *example) takeWithoutGap(events []*billing.Event, head int64) error {
	for _, event := range events {
		if event.Position != e.lastPosition+1 {
			return fmt.Errorf("expected an event at position %d, got %v", e.lastPosition+1, event)
		}
		e.lastPosition = event.Position
	}
	if e.lastPosition != head {
		return fmt.Errorf("caught up at position %d, but the head is %d", e.lastPosition, head)
	}
	return nil
}

func (e *example) resumeReading() (string, error) {
	var missed []string
	for _, name := range []string{"Ada", "Grace", "Edsger"} {
		customer, err := e.createCustomer(name)
		if err != nil {
			return "", err
		}
		missed = append(missed, customer.Id)
	}
	reader, err := e.open(&billing.StreamEventsRequest{AfterPosition: e.lastPosition}, callDeadline)
	if err != nil {
		return "", err
	}
	defer reader.close()
	events, head, err := reader.untilCaughtUp()
	if err != nil {
		return "", err
	}
	if err := e.takeWithoutGap(events, head); err != nil {
		return "", err
	}
	if err := expectCreated(events, missed); err != nil {
		return "", err
	}
	customer, err := e.createCustomer("Barbara")
	if err != nil {
		return "", err
	}
	live, head, err := reader.untilCaughtUp()
	if err != nil {
		return "", err
	}
	if err := e.takeWithoutGap(live, head); err != nil {
		return "", err
	}
	if err := expectCreated(live, []string{customer.Id}); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d events that were missed, then %d live", len(events), len(live)), nil
}

func expectCreated(events []*billing.Event, customers []string) error {
	var created []string
	for _, event := range events {
		if event.Type == "customer.created" && event.GetCustomerObject() != nil {
			created = append(created, event.GetCustomerObject().Id)
		}
	}
	if len(events) != len(customers) || !slices.Equal(created, customers) {
		return fmt.Errorf("expected the creation of %v and nothing else, got %v", customers, events)
	}
	return nil
}

func (e *example) readFilteredEvents() (string, error) {
	reader, err := e.open(&billing.StreamEventsRequest{Types: []string{"customer.subscription.*"}}, callDeadline)
	if err != nil {
		return "", err
	}
	defer reader.close()
	events, head, err := reader.untilCaughtUp()
	if err != nil {
		return "", err
	}
	created := 0
	for _, event := range events {
		if !strings.HasPrefix(event.Type, "customer.subscription.") {
			return "", fmt.Errorf("the filter let %s through", event.Type)
		}
		if event.Type == "customer.subscription.created" && event.GetSubscription().GetId() == e.subscription.Id {
			created++
		}
	}
	if created != 1 || head != e.lastPosition {
		return "", fmt.Errorf("expected one creation of %s before %d, got %v", e.subscription.Id, head, events)
	}
	return fmt.Sprintf("%d of %d events", len(events), head), nil
}

func (e *example) letDeadlinePass() (string, error) {
	const patience = 500 * time.Millisecond
	started := time.Now()
	reader, err := e.open(&billing.StreamEventsRequest{AfterPosition: e.lastPosition}, patience)
	if err == nil {
		defer reader.close()
	}
	for err == nil {
		_, err = reader.receive()
	}
	if status.Code(err) != codes.DeadlineExceeded {
		return "", fmt.Errorf("expected DEADLINE_EXCEEDED, got %v", err)
	}
	if waited := time.Since(started); waited < patience || waited > 60*patience {
		return "", fmt.Errorf("a deadline of %s ended after %s", patience, waited)
	}
	return "a stream ended with DEADLINE_EXCEEDED", nil
}
