"""The gRPC edge: decode, call the engine or a read model, encode.

`chain` is what every call passes, outermost first: request context, errors, limits, authentication, scope,
deadline. `endpoints` makes methods out of rows; each service is a table of such rows in a module of its own.
`server` turns the tables into handlers for grpc.aio.
"""
