"""Requests to receivers: where they go, what is made of the answer, and their bounds."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
import trustme

from billing_server.delivery.receivers import NotSentError, Receivers, Reply

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEADERS = {"webhook-id": "wd_1"}
SECONDS_MAX = 120.0


@contextlib.asynccontextmanager
async def listening(serve: Serve, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """A server that does with each connection what it is told, on a free port."""

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await serve(reader, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(guarded, host, 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def answering(head: str, body: bytes = b"", seen: list[bytes] | None = None) -> Serve:
    """Reads a request and answers it, again and again on one connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                request = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                return
            length = int(request.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            request += await reader.readexactly(length)
            if seen is not None:
                seen.append(request)
            writer.write(f"HTTP/1.1 {head}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()

    return serve


@pytest.fixture
async def receivers() -> AsyncIterator[Receivers]:
    """Requests that may go anywhere, and wait longer for an answer than any machine pauses."""
    made = Receivers(allow_private=True, seconds_max=SECONDS_MAX)
    yield made
    await made.close()


@pytest.fixture
async def impatient() -> AsyncIterator[Receivers]:
    """Requests that soon give up, for receivers that never answer."""
    made = Receivers(allow_private=True, seconds_max=0.5)
    yield made
    await made.close()


@pytest.mark.parametrize(
    ("head", "reply"),
    [
        ("200 OK", Reply(200)),
        ("204 No Content", Reply(204)),
        ("404 Not Found", Reply(404)),
        ("410 Gone", Reply(410)),
        ("503 Busy\r\nretry-after: 120", Reply(503, 120)),
        ("429 Slow\r\nRetry-After: Wed, 21 Oct 2026 07:28:00 GMT", Reply(429)),
        ("429 Slow\r\nretry-after: 99999999999999", Reply(429)),
    ],
)
async def test_the_head_of_the_answer_is_what_counts(receivers: Receivers, head: str, reply: Reply) -> None:
    async with listening(answering(head)) as port:
        assert await receivers.post(f"http://127.0.0.1:{port}/hooks", HEADERS, b"{}") == reply


async def test_what_is_sent(receivers: Receivers) -> None:
    seen: list[bytes] = []
    async with listening(answering("200 OK", b"thanks", seen)) as port:
        for _ in range(2):
            await receivers.post(f"http://127.0.0.1:{port}/hooks?a=b%20c", HEADERS, b'{"id":1}')
    head, _, body = seen[0].partition(b"\r\n\r\n")
    assert body == b'{"id":1}'
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /hooks?a=b%20c HTTP/1.1"
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    assert headers["content-type"] == "application/json"
    assert headers["webhook-id"] == "wd_1"
    assert "cookie" not in headers


async def test_a_short_answer_leaves_the_connection_usable(receivers: Receivers) -> None:
    connections = 0
    answer = answering("200 OK", b"ok" * 100)

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await answer(reader, writer)

    async with listening(count) as port:
        for _ in range(5):
            await receivers.post(f"http://127.0.0.1:{port}/", HEADERS, b"{}")
    assert connections == 1


async def test_redirects_are_answers_and_nothing_else(receivers: Receivers) -> None:
    seen: list[bytes] = []
    async with listening(answering("200 OK", seen=seen)) as inner:
        location = f"http://127.0.0.1:{inner}/secret"
        for status in (301, 302, 303, 307, 308):
            async with listening(answering(f"{status} Elsewhere\r\nlocation: {location}")) as port:
                reply = await receivers.post(f"http://127.0.0.1:{port}/", HEADERS, b"{}")
            assert reply.status == status
    assert seen == []


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nx-slow: "], ids=["silent", "in the middle of its head"])
async def test_slow_receivers_are_left(impatient: Receivers, said: bytes) -> None:
    """The one in the middle of its head goes on for ever, so what ends it is a bound on the whole."""

    async def dawdle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        while not reader.at_eof():
            writer.write(b"." if said else b"")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with listening(dawdle) as port, asyncio.timeout(SECONDS_MAX):
        with pytest.raises(NotSentError, match=r"no answer within 0\.5 s"):
            await impatient.post(f"http://127.0.0.1:{port}/", HEADERS, b"{}")


async def test_a_huge_answer_is_not_read(receivers: Receivers) -> None:
    written = 0
    ended = asyncio.Event()

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000000\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65_536)
                await writer.drain()
                written += 65_536
        finally:
            ended.set()

    async with listening(pour) as port:
        assert await receivers.post(f"http://127.0.0.1:{port}/", HEADERS, b"{}") == Reply(200)
        await asyncio.wait_for(ended.wait(), SECONDS_MAX)
    assert written < 20_000_000, "no more than what buffers hold"


async def test_a_body_that_never_ends_costs_a_second(receivers: Receivers) -> None:
    """And not all the time that there is for an answer, as waiting for its end would."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with listening(drip) as port, asyncio.timeout(SECONDS_MAX / 2):
        assert await receivers.post(f"http://127.0.0.1:{port}/", HEADERS, b"{}") == Reply(200)


@pytest.mark.parametrize(
    "head",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"x%d: y\r\n" % n for n in range(100_000)) + b"\r\n",
        b"",
    ],
    ids=["no HTTP", "long header", "many headers", "hangs up"],
)
async def test_what_is_no_answer(receivers: Receivers, head: bytes) -> None:
    async def blurt(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head)
        await writer.drain()

    async with listening(blurt) as port:
        with pytest.raises(NotSentError):
            await receivers.post(f"http://127.0.0.1:{port}/", HEADERS, b"{}")


async def test_nobody_listens(receivers: Receivers) -> None:
    async with listening(answering("200 OK")) as port:
        pass
    with pytest.raises(NotSentError, match="cannot connect"):
        await receivers.post(f"http://127.0.0.1:{port}/", HEADERS, b"{}")


# --- where requests go


class Names:
    """Answers for host names, and counts who asks; a name may change its answer, as a rebinding attacker does."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self._answers = {name.replace("_", "."): list(given) for name, given in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        answers = self._answers.get(host)
        if answers is None:
            raise OSError(None, "Name or service not known")
        return answers.pop(0) if len(answers) > 1 else answers[0]


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.5", "169.254.169.254", "100.64.0.1", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "fd00::1"],
)
@pytest.mark.parametrize("beside", [[], ["93.184.216.34"]], ids=["alone", "beside a public one"])
async def test_names_that_stand_for_private_addresses_are_refused(address: str, beside: list[str]) -> None:
    """A server listens there, but gets no connection."""
    names = Names(inside_example=[[*beside, address]])
    receivers = Receivers(lookup=names, seconds_max=SECONDS_MAX)
    try:
        with pytest.raises(NotSentError, match="no public address"):
            await receivers.post("https://inside.example/", HEADERS, b"{}")
    finally:
        await receivers.close()
    assert names.asked == ["inside.example"]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://shop.example/", "https"),
        ("https://127.0.0.1/", "loopback"),
        ("https://[::1]/", "loopback"),
        ("https://2130706433/", "no IP address"),
        ("https://127.1/", "no IP address"),
        ("https://unknown.example/", "not known"),
    ],
)
async def test_what_is_never_connected_to(url: str, told: str) -> None:
    receivers = Receivers(lookup=Names())
    try:
        with pytest.raises(NotSentError, match=told):
            await receivers.post(url, HEADERS, b"{}")
    finally:
        await receivers.close()


async def test_the_system_resolver_is_asked_and_its_answer_checked() -> None:
    receivers = Receivers()
    try:
        with pytest.raises(NotSentError, match="no public address"):
            await receivers.post("https://localhost/", HEADERS, b"{}")
    finally:
        await receivers.close()


@pytest.mark.parametrize(
    ("host", "answer"),
    [
        ("127.0.0.1", ""),
        ("inside.example", "127.0.0.1"),
        ("inside.example", "2130706433"),
        ("inside.example", "0x7f000001"),
    ],
)
async def test_the_last_look_is_at_the_socket(monkeypatch: pytest.MonkeyPatch, host: str, answer: str) -> None:
    """Even if a resolver and a URL slipped through, nothing private is connected to."""
    monkeypatch.setattr("billing_server.delivery.receivers.refusal_of_url", lambda url: None)
    monkeypatch.setattr("billing_server.delivery.receivers.refusal_of_addresses", lambda addresses: None)
    connections = 0

    async def notice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1

    receivers = Receivers(lookup=Names(inside_example=[[answer]]))
    async with listening(notice) as port:
        with pytest.raises(NotSentError, match=r"no public address|no IP address"):
            await receivers.post(f"http://{host}:{port}/", HEADERS, b"{}")
    await receivers.close()
    assert connections == 0


async def test_each_connection_asks_once_and_goes_where_it_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that first stands for a good and then for a bad address: the good one is connected to, or none."""
    good, bad = "127.0.0.1", "127.0.0.2"
    monkeypatch.setattr(
        "billing_server.delivery.receivers.refusal_of_addresses", lambda found: "bad" if bad in found else None
    )
    monkeypatch.setattr("billing_server.delivery.receivers.refusal_of_address", lambda text: None)
    monkeypatch.setattr("billing_server.delivery.receivers.refusal_of_url", lambda url: None)
    names = Names(rebind_example=[[good], [bad]])
    receivers = Receivers(lookup=names, seconds_max=SECONDS_MAX)
    async with listening(answering("200 OK\r\nconnection: close")) as port:
        url = f"http://rebind.example:{port}/"
        assert await receivers.post(url, HEADERS, b"{}") == Reply(200)
        assert names.asked == ["rebind.example"]
        with pytest.raises(NotSentError, match="bad"):
            await receivers.post(url, HEADERS, b"{}")
    await receivers.close()


# --- TLS


@pytest.mark.parametrize("certified", ["shop.example", "other.example"])
@pytest.mark.parametrize("trusted", [True, False])
async def test_certificates_are_checked_by_name(certified: str, trusted: bool) -> None:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(certified).configure_cert(server)
    client = ssl.create_default_context()
    if trusted:
        authority.configure_trust(client)
    receivers = Receivers(allow_private=True, lookup=Names(shop_example=[["127.0.0.1"]]), tls=client)
    async with listening(answering("200 OK"), server) as port:
        post = receivers.post(f"https://shop.example:{port}/", HEADERS, b"{}")
        if trusted and certified == "shop.example":
            assert await post == Reply(200)
        else:
            with pytest.raises(NotSentError, match="certificate"):
                await post
    await receivers.close()


async def test_a_hanging_lookup_delays_nobody_else() -> None:
    found = asyncio.Event()

    async def lookup(host: str) -> Sequence[str]:
        if host == "slow.example":
            await found.wait()
        return ["127.0.0.1"]

    receivers = Receivers(allow_private=True, lookup=lookup, seconds_max=SECONDS_MAX)
    async with listening(answering("200 OK")) as port:
        slow = [asyncio.create_task(receivers.post(f"http://slow.example:{port}/", HEADERS, b"{}")) for _ in range(150)]
        await asyncio.sleep(0)
        assert await receivers.post(f"http://fast.example:{port}/", HEADERS, b"{}") == Reply(200)
        assert not any(task.done() for task in slow), "which all still hang"
        found.set()
        assert await asyncio.gather(*slow) == [Reply(200)] * 150
    await receivers.close()


async def test_a_lookup_that_hangs_is_left_in_time() -> None:
    async def lookup(host: str) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    receivers = Receivers(allow_private=True, lookup=lookup, seconds_max=0.2)
    async with asyncio.timeout(SECONDS_MAX):
        with pytest.raises(NotSentError, match=r"no answer within 0\.2 s"):
            await receivers.post("http://slow.example/", HEADERS, b"{}")
    await receivers.close()


async def test_the_environment_names_no_proxy(monkeypatch: pytest.MonkeyPatch, receivers: Receivers) -> None:
    """A proxy would resolve names by itself, unchecked."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    async with listening(answering("200 OK")) as port:
        assert await receivers.post(f"http://127.0.0.1:{port}/", HEADERS, b"{}") == Reply(200)
