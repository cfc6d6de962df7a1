"""E-mail is delivered at least once, whatever the server says, and settled once it is (promise 21)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from billing_server.delivery import mail as mail_module
from billing_server.delivery.letter import Sender
from billing_server.delivery.mail import GIVE_UP_SECONDS, Mail
from billing_server.delivery.outbox import SEND_SECONDS_MAX, FolderOutbox, Outbox, SmtpOutbox, SmtpServer
from billing_server.domain.message import Facts, Message
from billing_server.store.message import MessageFilter
from billing_server.store.store import Store
from tests.mail.post_office import DROP, TAKE_AND_DROP, PostOffice
from tests.store import samples
from tests.store.samples import NOW

SENDER = Sender("billing@shop.example")


def letter_id(message: Message) -> str:
    return f"<{message.id}@shop.example>"


async def stage(store: Store, account_id: str, *recipients: str, **changes: Any) -> list[Message]:
    """Stage a message to each recipient."""
    staged = [samples.message(samples.customer(), recipient=recipient, **changes) for recipient in recipients]
    async with store.transaction(account_id) as unit:
        await unit.open()
        await unit.save((), messages=staged)
    return staged


async def states(store: Store, account_id: str) -> dict[str, tuple[str, int]]:
    """State and tries of all messages, by recipient."""
    async with store.view(account_id) as view:
        found = (await view.page(MessageFilter(), limit=500)).items
    return {message.recipient: (message.state, message.attempts) for message in found}


class OneAccount:
    """The store, but for its sweep: other tests' messages stay where they are."""

    def __init__(self, store: Store, account_id: str) -> None:
        self._store = store
        self._account_id = account_id

    async def accounts_with_due_messages(self) -> list[str]:
        return [found for found in await self._store.accounts_with_due_messages() if found == self._account_id]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


Make = Callable[..., Mail]


@pytest.fixture
async def make(store: Store, account_id: str, post_office: PostOffice, tmp_path: Path) -> AsyncIterator[Make]:
    """Makes the mail of one more process."""
    made: list[Mail] = []

    def make(outbox: Outbox | None = None, **fields: Any) -> Mail:
        one = OneAccount(store, account_id)
        fields = {"retry_seconds": (0,), "now": lambda: NOW, "sandbox": FolderOutbox(tmp_path / "sandbox"), **fields}
        mail = Mail(one, outbox or SmtpOutbox(post_office.server), SENDER, **fields)  # type: ignore[arg-type]  # a store in all that matters
        made.append(mail)
        return mail

    yield make
    for mail in made:
        await mail.close(1)


async def test_a_letter_arrives(store: Store, account_id: str, post_office: PostOffice, make: Make) -> None:
    (message,) = await stage(store, account_id, "jenny@example.com")
    mail = make()

    assert await mail.deliver() == 1
    (letter,) = post_office.letters
    assert (letter["To"], letter["Message-ID"]) == ("jenny@example.com", letter_id(message))
    assert await states(store, account_id) == {"jenny@example.com": ("sent", 1)}
    assert await mail.deliver() == 0
    assert mail.outcomes == {"sent": 1}


@pytest.mark.parametrize("at_rcpt", [True, False], ids=["address", "content"])
@pytest.mark.parametrize(
    ("answers", "state", "tries", "copies"),
    [
        (["451 try later"], "sent", 2, 1),
        (["421 busy", "450 busy"], "sent", 3, 1),
        ([DROP, DROP], "sent", 3, 1),
        (["550 no such user"], "failed", 1, 0),
        (["451 try later", "552 too much"], "failed", 2, 0),
    ],
)
async def test_answers(
    store: Store,
    account_id: str,
    post_office: PostOffice,
    make: Make,
    at_rcpt: bool,
    answers: list[str],
    state: str,
    tries: int,
    copies: int,
) -> None:
    (message,) = await stage(store, account_id, "jenny@example.com")
    post_office.at_rcpt = at_rcpt
    post_office.answers["jenny@example.com"] = list(answers)
    mail = make()
    for _ in range(5):
        await mail.deliver()

    assert await states(store, account_id) == {"jenny@example.com": (state, tries)}
    assert post_office.taken[letter_id(message)] == copies


async def test_a_letter_that_was_taken_without_a_word_comes_twice_under_one_id(
    store: Store, account_id: str, post_office: PostOffice, make: Make
) -> None:
    (message,) = await stage(store, account_id, "jenny@example.com")
    post_office.answers["jenny@example.com"] = [TAKE_AND_DROP]
    mail = make()
    await mail.deliver()
    await mail.deliver()

    assert post_office.taken == {letter_id(message): 2}
    first, second = post_office.letters
    assert first.as_bytes() == second.as_bytes(), "the same letter, to the byte"


async def test_a_bad_server_loses_nothing(store: Store, account_id: str, post_office: PostOffice, make: Make) -> None:
    """Most tries fail, in all ways: each letter arrives at least once, and more often only when it was taken."""
    seed = random.randrange(10**9)
    chance = random.Random(seed)
    words = ["250 taken", "250 taken", "451 later", "421 busy", DROP, TAKE_AND_DROP]
    swallowed = 0

    def choose() -> str:
        nonlocal swallowed
        answer = chance.choice(words)
        swallowed += answer == TAKE_AND_DROP
        return answer

    post_office.chance = choose
    messages = await stage(store, account_id, *(f"user{number}@example.com" for number in range(60)))
    one, other = make(), make()
    for _ in range(100):
        if not sum(await asyncio.gather(one.deliver(), other.deliver())):
            break

    assert {state for state, _ in (await states(store, account_id)).values()} == {"sent"}, f"seed {seed}"
    assert {letter_id(message) for message in messages} == set(post_office.taken), f"seed {seed}"
    assert post_office.taken.total() == len(messages) + swallowed, f"seed {seed}: no other duplicates"


class Killed(BaseException):
    """What a process dies of."""


async def test_killed_between_sending_and_settling(
    store: Store,
    account_id: str,
    post_office: PostOffice,
    make: Make,
    administrator: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (message,) = await stage(store, account_id, "jenny@example.com")
    mail = make()

    async def die(*_: Any) -> int:
        raise Killed

    monkeypatch.setattr(mail._store, "settle_messages", die, raising=False)
    with pytest.raises(Killed):
        await mail.deliver()
    heir = make()
    assert await heir.deliver() == 0, "as long as the lease lasts, it may still be on its way"
    await administrator.execute("UPDATE messages SET due_at = 1 WHERE id = $1", message.id)
    assert await heir.deliver() == 1

    assert post_office.taken == {letter_id(message): 2}
    assert await states(store, account_id) == {"jenny@example.com": ("sent", 2)}


async def test_given_up_after_three_days(store: Store, account_id: str, post_office: PostOffice, make: Make) -> None:
    await stage(store, account_id, "jenny@example.com")
    post_office.answers["jenny@example.com"] = ["451 later"] * 3
    now = NOW
    mail = make(now=lambda: now)
    await mail.deliver()
    now = NOW + GIVE_UP_SECONDS - 1
    await mail.deliver()
    assert await states(store, account_id) == {"jenny@example.com": ("due", 2)}
    now = NOW + GIVE_UP_SECONDS
    await mail.deliver()

    assert await states(store, account_id) == {"jenny@example.com": ("failed", 3)}
    assert mail.outcomes == {"retried": 2, "failed": 1}


def test_pauses_grow_and_end_within_three_days() -> None:
    pauses = mail_module.RETRY_SECONDS
    assert list(pauses) == sorted(pauses)
    assert pauses[-1] < GIVE_UP_SECONDS / 10, "a server that comes back after two days still gets its letters"


async def test_a_server_that_is_away_costs_one_batch(store: Store, account_id: str, make: Make) -> None:
    office = PostOffice()
    await office.open()
    server, port = office.server, office.port
    await office.close()
    await stage(store, account_id, *(f"user{number}@example.com" for number in range(25)))
    mail = make(SmtpOutbox(server))

    assert await mail.deliver() == 10, "then it waits"
    assert mail._pause() > 1
    await office.open(port)
    try:
        for _ in range(3):
            await mail.deliver()
    finally:
        await mail.close()
        await office.close()
    assert {state for state, _ in (await states(store, account_id)).values()} == {"sent"}
    assert mail._pause() == 1


@pytest.mark.parametrize("answer", ["554 go away", "421 busy"])
async def test_a_server_that_refuses_everybody_is_away(store: Store, account_id: str, make: Make, answer: str) -> None:
    """Refused at the door, with 5xx too: that is no word on any letter."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{answer}\r\n".encode())
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    await stage(store, account_id, "jenny@example.com")
    port = server.sockets[0].getsockname()[1]
    mail = make(SmtpOutbox(SmtpServer(host="127.0.0.1", port=port, security="none")))
    await mail.deliver()
    server.close()

    assert await states(store, account_id) == {"jenny@example.com": ("due", 1)}


async def test_a_server_that_hangs_is_left_in_time(
    store: Store, account_id: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("billing_server.delivery.outbox.SEND_SECONDS_MAX", 0.2)

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()

    silent = await asyncio.start_server(listen, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    await stage(store, account_id, "jenny@example.com")
    mail = make(SmtpOutbox(SmtpServer(host="127.0.0.1", port=port, security="none")))
    async with asyncio.timeout(SEND_SECONDS_MAX):
        await mail.deliver()
    silent.close()

    assert await states(store, account_id) == {"jenny@example.com": ("due", 1)}


async def test_connections_are_kept_and_replaced(
    store: Store, account_id: str, post_office: PostOffice, make: Make
) -> None:
    await stage(store, account_id, *(f"user{number}@example.com" for number in range(30)))
    mail = make()
    await mail.deliver()
    assert len(post_office.letters) == 30
    assert post_office.connections <= mail_module.AT_ONCE_MAX
    port = post_office.port
    await post_office.close()
    await post_office.open(port)
    await stage(store, account_id, "late@example.com")
    await mail.deliver()
    assert (await states(store, account_id))["late@example.com"] == ("sent", 1)


async def test_what_cannot_be_written_fails_at_once(store: Store, account_id: str, make: Make) -> None:
    await stage(store, account_id, "broken@example.com", facts=Facts(company="Shop"))
    mail = make()
    await mail.deliver()

    assert await states(store, account_id) == {"broken@example.com": ("failed", 1)}


async def test_letters_of_test_clocks_stay_in_the_sandbox(
    store: Store, account_id: str, post_office: PostOffice, make: Make, tmp_path: Path
) -> None:
    (message,) = await stage(store, account_id, "jenny@example.com", test_clock="clock_1")
    await make().deliver()

    assert post_office.letters == []
    assert [path.name for path in (tmp_path / "sandbox").iterdir()] == [f"{message.id}.eml"]
    assert await states(store, account_id) == {"jenny@example.com": ("sent", 1)}


async def test_files_are_written_once_however_often_they_are_sent(
    store: Store, account_id: str, make: Make, tmp_path: Path, administrator: asyncpg.Connection
) -> None:
    (message,) = await stage(store, account_id, "jenny@example.com")
    mail = make(FolderOutbox(tmp_path / "mail"))
    await mail.deliver()
    await administrator.execute(
        "UPDATE messages SET state = 'due', due_at = 1, settled_at = NULL WHERE id = $1", message.id
    )
    await mail.deliver()

    assert [path.name for path in (tmp_path / "mail").iterdir()] == [f"{message.id}.eml"]


async def test_a_folder_that_cannot_be_written_to_is_tried_again(
    store: Store, account_id: str, make: Make, tmp_path: Path
) -> None:
    (tmp_path / "mail").write_text("a file where the folder should be")
    await stage(store, account_id, "jenny@example.com")
    mail = make(FolderOutbox(tmp_path / "mail"))
    await mail.deliver()
    assert await states(store, account_id) == {"jenny@example.com": ("due", 1)}
    (tmp_path / "mail").unlink()
    await mail.deliver()
    assert await states(store, account_id) == {"jenny@example.com": ("sent", 2)}


async def test_the_task_delivers_by_itself_and_ends(
    store: Store, account_id: str, post_office: PostOffice, make: Make
) -> None:
    await stage(store, account_id, "jenny@example.com")
    mail = make()
    mail.start()
    async with asyncio.timeout(60):
        await post_office.took.wait()
    await mail.close(60)
    assert await states(store, account_id) == {"jenny@example.com": ("sent", 1)}
