"""The only room that talks to PostgreSQL: migrations, loading and saving of books, read models.

    store          what the other rooms use: transactions, views, sweeps, housekeeping
    unit           one transaction of one account: lock or claim, load, save
    view           objects by id, lists and events, read without locks
    loading        many books by a handful of queries
    saving         what changed in many books, by a handful of statements
    book           the narrow row by which books are locked and found
    customer, subscription, invoice, payment, catalog, account, test_clock, idempotency, event, test_gateway
                   how each noun is stored, and which lists of it there are
    rows           structs to rows and back
    queries        the files of named queries in sql/
    listing        filters and pages
    owners         which customer an object belongs to
    database       connections, roles, transactions
    notifications  waking the readers of events in other processes
    statistics     keeping plans right in a young database
    migrate        bringing the schema up to date
    errors         what can go wrong

It decides nothing: what a book becomes is said by `domain`, when that happens by `engine`.
"""
