// Calls the billing engine from Node: subscriptions, refusals with their details, and the stream of events.
//
// Prints a line for each step. The first surprise ends the program with status 1 and says what was expected.
'use strict';

const assert = require('node:assert/strict');
const { randomUUID } = require('node:crypto');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');
const { getProtoPath } = require('google-proto-files');
const healthCheck = require('grpc-health-check');

const DEADLINE_MILLISECONDS = 30_000;

const definition = protoLoader.loadSync(
  [
    'billing/v1/catalog_service.proto',
    'billing/v1/customer_service.proto',
    'billing/v1/event_service.proto',
    'billing/v1/subscription_service.proto',
    'google/rpc/error_details.proto',
    'google/rpc/status.proto',
    healthCheck.protoPath,
  ],
  {
    includeDirs: [required('BILLING_PROTOS'), getProtoPath('..')],
    // 64-bit integers do not fit into a number: positions and amounts come as strings.
    longs: String,
    enums: String,
    defaults: true,
    oneofs: true,
  },
);
const packages = grpc.loadPackageDefinition(definition);
const billing = packages.billing.v1;

const target = required('BILLING_TARGET');
// Keys travel in plaintext here: right on loopback only. Elsewhere use grpc.credentials.createSsl().
const credentials = grpc.credentials.createInsecure();
const health = new packages.grpc.health.v1.Health(target, credentials);
const catalog = new billing.CatalogService(target, credentials);
const customers = new billing.CustomerService(target, credentials);
const subscriptions = new billing.SubscriptionService(target, credentials);
const events = new billing.EventService(target, credentials);

function required(name) {
  const value = process.env[name];
  if (!value) {
    console.error(`surprise: ${name} is not set`);
    process.exit(1);
  }
  return value;
}

function authorized(key = required('BILLING_API_KEY')) {
  const metadata = new grpc.Metadata();
  metadata.set('authorization', `Bearer ${key}`);
  return metadata;
}

function within(milliseconds) {
  return { deadline: Date.now() + milliseconds };
}

/** Sends one unary request with a deadline. */
function call(client, method, request, metadata = authorized()) {
  return new Promise((resolve, reject) => {
    client[method](request, metadata, within(DEADLINE_MILLISECONDS), (error, response) =>
      error ? reject(error) : resolve(response),
    );
  });
}

/** The refusal that a request must meet, with the details of its status by their message names. */
async function refusal(code, request) {
  const error = await request.then(
    (response) => assert.fail(`expected ${grpc.status[code]}, got ${JSON.stringify(response)}`),
    (caught) => caught,
  );
  assert.equal(error.code, code, `expected ${grpc.status[code]}, got ${error}`);
  const [serialized] = error.metadata.get('grpc-status-details-bin');
  assert.ok(serialized, `no details came with ${error}`);
  const status = definition['google.rpc.Status'].deserialize(serialized);
  assert.equal(status.code, code);
  const details = {};
  for (const { type_url: typeUrl, value } of status.details) {
    const name = typeUrl.slice(typeUrl.lastIndexOf('/') + 1);
    details[name.replace('google.rpc.', '')] = definition[name].deserialize(value);
  }
  assert.equal(details.ErrorInfo.domain, 'billing.v1');
  return details;
}

/** Reads a stream batch by batch. */
class EventReader {
  constructor(request, milliseconds = DEADLINE_MILLISECONDS) {
    this.stream = events.streamEvents(request, authorized(), within(milliseconds));
    this.batches = this.stream[Symbol.asyncIterator]();
  }

  /** All events there are, and the head position of the log. */
  async untilCaughtUp() {
    const found = [];
    for (;;) {
      const { done, value: batch } = await this.batches.next();
      assert.ok(!done, 'the server ended the stream');
      found.push(...batch.events);
      if (batch.caughtUp) {
        return { found, head: BigInt(batch.headPosition) };
      }
    }
  }

  /** Disconnects. */
  async close() {
    this.stream.cancel();
    await this.batches.next().catch((error) => assert.equal(error.code, grpc.status.CANCELLED));
  }
}

let price;
let customer;
let subscription;
let lastPosition = 0n;

function createCustomer(name) {
  return call(customers, 'createCustomer', { name, metadata: { language: 'node' } });
}

function attach(owner, token) {
  return call(customers, 'attachPaymentMethod', { customer: owner.id, token, setDefault: true });
}

async function subscriptionsOf(owner) {
  const page = await call(subscriptions, 'listSubscriptions', { customer: owner.id, includeEnded: true });
  return page.subscriptions;
}

/** Moves the last position on, event by event, to the head. */
function takeWithoutGap({ found, head }) {
  for (const event of found) {
    assert.equal(BigInt(event.position), lastPosition + 1n, 'a gap or a repeat in the stream');
    lastPosition = BigInt(event.position);
  }
  assert.equal(lastPosition, head, 'caught up, but not at the head');
}

function assertCreated(found, expected) {
  const created = found.map(({ type, customerObject }) => [type, customerObject?.id]);
  assert.deepEqual(
    created,
    expected.map(({ id }) => ['customer.created', id]),
  );
}

const steps = {
  health: async () => {
    for (const service of ['', 'billing.v1.SubscriptionService']) {
      const { status } = await call(health, 'check', { service }, new grpc.Metadata());
      assert.equal(status, 'SERVING', `service "${service}" is ${status}`);
    }
    return 'serving';
  },

  'wrong key': async () => {
    const request = call(catalog, 'listProducts', {}, authorized('not-a-key'));
    const { ErrorInfo } = await refusal(grpc.status.UNAUTHENTICATED, request);
    assert.equal(ErrorInfo.reason, 'UNAUTHENTICATED');
    return ErrorInfo.reason;
  },

  catalog: async () => {
    const product = await call(catalog, 'createProduct', { name: 'Gold plan' });
    price = await call(catalog, 'createPrice', {
      product: product.id,
      currency: 'usd',
      unitAmount: '1000',
      recurring: { interval: 'INTERVAL_MONTH' },
    });
    assert.equal(price.type, 'PRICE_TYPE_RECURRING');
    assert.equal(price.recurring.intervalCount, 1);
    return `${product.id} at ${price.id}`;
  },

  customer: async () => {
    const { id } = await createCustomer('Jenny Rosen');
    const method = await attach({ id }, 'pm_card_visa');
    customer = await call(customers, 'getCustomer', { id });
    assert.equal(customer.defaultPaymentMethod, method.id);
    assert.deepEqual({ ...customer.metadata }, { language: 'node' });
    return `${id} pays with ${method.id}`;
  },

  subscription: async () => {
    const request = { customer: customer.id, items: [{ price: price.id, quantity: '2' }] };
    const metadata = authorized();
    metadata.set('idempotency-key', randomUUID());
    subscription = await call(subscriptions, 'createSubscription', request, metadata);
    const again = await call(subscriptions, 'createSubscription', request, metadata);
    assert.deepEqual(again, subscription, 'the same key gave another response');
    assert.equal(subscription.status, 'SUBSCRIPTION_STATUS_ACTIVE');
    assert.deepEqual(
      subscription.items.map(({ quantity }) => quantity),
      ['2'],
    );
    const days = (Number(subscription.currentPeriodEnd.seconds) - Date.now() / 1000) / 86_400;
    assert.ok(days > 27 && days < 32, `expected a period of a month, but it ends in ${days} days`);
    assert.equal((await subscriptionsOf(customer)).length, 1);
    return `${subscription.id} is active, and the same for the same idempotency key`;
  },

  decline: async () => {
    const declined = await createCustomer('Poor Charlie');
    await attach(declined, 'pm_card_visa_chargeDeclinedInsufficientFunds');
    const request = call(subscriptions, 'createSubscription', {
      customer: declined.id,
      items: [{ price: price.id }],
      paymentBehavior: 'PAYMENT_BEHAVIOR_ERROR_IF_INCOMPLETE',
    });
    const { ErrorInfo } = await refusal(grpc.status.FAILED_PRECONDITION, request);
    assert.equal(ErrorInfo.reason, 'CARD_DECLINED');
    assert.equal(ErrorInfo.metadata.decline_code, 'insufficient_funds');
    assert.deepEqual(await subscriptionsOf(declined), [], 'a refused request left something');
    return `${ErrorInfo.reason} with ${ErrorInfo.metadata.decline_code}`;
  },

  violations: async () => {
    const request = call(catalog, 'createPrice', { currency: 'usd', unitAmount: 'ten' });
    const { BadRequest } = await refusal(grpc.status.INVALID_ARGUMENT, request);
    for (const violation of BadRequest.fieldViolations) {
      assert.ok(violation.description && violation.reason, `incomplete: ${JSON.stringify(violation)}`);
    }
    const fields = BadRequest.fieldViolations.map(({ field }) => field).sort();
    assert.deepEqual(fields, ['product', 'unit_amount']);
    return fields.join(', ');
  },

  stream: async () => {
    const reader = new EventReader({ afterPosition: '0', batchMax: 5 });
    const read = await reader.untilCaughtUp();
    takeWithoutGap(read);
    await reader.close();
    return `${read.found.length} events without a gap, then caught up`;
  },

  resume: async () => {
    const missed = [];
    for (const name of ['Ada', 'Grace', 'Edsger']) {
      missed.push(await createCustomer(name));
    }
    const reader = new EventReader({ afterPosition: String(lastPosition) });
    const read = await reader.untilCaughtUp();
    takeWithoutGap(read);
    assertCreated(read.found, missed);
    const barbara = await createCustomer('Barbara');
    const live = await reader.untilCaughtUp();
    takeWithoutGap(live);
    assertCreated(live.found, [barbara]);
    await reader.close();
    return `${read.found.length} events that were missed, then ${live.found.length} live`;
  },

  filter: async () => {
    const reader = new EventReader({ types: ['customer.subscription.*'] });
    const { found, head } = await reader.untilCaughtUp();
    await reader.close();
    for (const { type } of found) {
      assert.ok(type.startsWith('customer.subscription.'), `the filter let ${type} through`);
    }
    const created = found.filter(
      (event) => event.type === 'customer.subscription.created' && event.subscription?.id === subscription.id,
    );
    assert.equal(created.length, 1);
    assert.equal(head, lastPosition);
    return `${found.length} of ${head} events`;
  },

  deadline: async () => {
    const patience = 500;
    const started = Date.now();
    const reader = new EventReader({ afterPosition: String(lastPosition) }, patience);
    const error = await (async () => {
      for (;;) {
        await reader.untilCaughtUp();
      }
    })().catch((caught) => caught);
    const waited = Date.now() - started;
    assert.equal(error.code, grpc.status.DEADLINE_EXCEEDED, `expected DEADLINE_EXCEEDED, got ${error}`);
    assert.ok(waited > 0.9 * patience && waited < 60 * patience, `${patience} ms ended after ${waited} ms`);
    return 'a stream ended with DEADLINE_EXCEEDED';
  },
};

async function main() {
  for (const [name, take] of Object.entries(steps)) {
    try {
      console.log(`${name}: ${await take()}`);
    } catch (error) {
      console.error(`surprise: ${name}: ${error.stack}`);
      process.exitCode = 1;
      break;
    }
  }
  for (const client of [health, catalog, customers, subscriptions, events]) {
    client.close();
  }
}

main();
