"""Domain objects to protobuf messages and requests to commands: the only room that knows both.

`pairs` says which struct is which message, `shapes` reads what they are made of, `plans` matches the two
field by field when the server starts, and the rest converts by these plans: `encoding` (objects to messages),
`decoding` (requests to commands), `attributes` and `events` (events to stored bytes), `parsing` (bytes to
requests). `contract` tells what the protos say about methods and error reasons. Import from `codec`.
"""
