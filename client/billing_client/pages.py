"""Lists as one iterator, however many pages they have."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Protocol, TypeVar

PAGE_SIZE = 200
"""Objects asked for at once by default."""

PAGE_SIZE_MAX = 1000
"""Most objects that the engine puts into a page."""


class ListRequest(Protocol):
    """The request of any List method."""

    page_size: int
    page_token: str

    def CopyFrom(self, other: Any, /) -> None:  # noqa: N802  (protobuf's name)
        """Become a copy of another message."""


class ListResponse(Protocol):
    """The response of any List method."""

    @property
    def next_page_token(self) -> str:
        """Token of the next page; empty on the last one."""


Request = TypeVar("Request", bound=ListRequest)
Response = TypeVar("Response", bound=ListResponse)
Item = TypeVar("Item")


async def pages(
    method: Callable[[Request], Awaitable[Response]], request: Request, page_size: int = PAGE_SIZE
) -> AsyncIterator[Response]:
    """The pages of a list. The request is not changed; a `page_size` of its own wins."""
    following = type(request)()
    following.CopyFrom(request)
    following.page_size = request.page_size or page_size
    while True:
        page = await method(following)
        yield page
        if not page.next_page_token:
            return
        following.page_token = page.next_page_token


async def list_all(
    method: Callable[[Request], Awaitable[Response]],
    request: Request,
    pick: Callable[[Response], Iterable[Item]],
    page_size: int = PAGE_SIZE,
) -> AsyncIterator[Item]:
    """All objects of a list, one by one; only one page is in memory. `pick` takes them out of a page."""
    async for page in pages(method, request, page_size):
        for item in pick(page):
            yield item
