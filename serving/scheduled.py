"""One request as the scheduler sees it: its tokens, its pages, how far it is computed."""

from __future__ import annotations

import dataclasses

from serving.pages import PagePool, next_digest


@dataclasses.dataclass(slots=True, kw_only=True, eq=False)
class ScheduledRequest:
    """A request's books.

    Attributes:
        request_id: Its id.
        tokens: The prompt, then every generated token that is known.
        prompt_tokens: How many of them are the prompt.
        max_tokens: Most tokens to generate.
        order: Smaller goes first: when it arrived, later for each level of `priority`.
        may_skip: Whether tokens found in the cache may be left uncomputed.
        slot: Its slot while it runs.
        pages: Its pages, in order.
        prefill_end: Tokens that chunks take in, while it runs; the rest are fed one a step.
        computed: Tokens in the cache, those of steps under way included.
        digests: Of its first full pages, as far as they were needed.
        registered: How many of its pages were made findable.
    """

    request_id: str
    tokens: list[int]
    prompt_tokens: int
    max_tokens: int
    order: tuple[float, int]
    may_skip: bool
    slot: int = -1
    pages: list[int] = dataclasses.field(default_factory=list)
    prefill_end: int = 0
    computed: int = 0
    digests: list[bytes] = dataclasses.field(default_factory=list)
    registered: int = 0

    @property
    def total_tokens(self) -> int:
        """Tokens of prompt and completion at most."""
        return self.prompt_tokens + self.max_tokens

    @property
    def is_prefilled(self) -> bool:
        """Whether what is left is fed one token a step."""
        return self.computed >= self.prefill_end

    @property
    def can_decode(self) -> bool:
        """Whether another token is to be sampled."""
        # The last token that is sampled is never fed.
        return self.is_prefilled and self.max_tokens > 0 and self.computed < self.total_tokens - 1

    @property
    def is_complete(self) -> bool:
        """Whether every step of a running request is planned."""
        return self.is_prefilled and not self.can_decode

    def digest(self, index: int, page_size: int) -> bytes:
        """Of page `index`, whose tokens must be known."""
        while len(self.digests) <= index:
            start = len(self.digests) * page_size
            previous = self.digests[-1] if self.digests else b""
            self.digests.append(next_digest(previous, self.tokens[start : start + page_size]))
        return self.digests[index]

    def find_prefix(self, pool: PagePool, share_pages: int) -> list[int]:
        """The findable pages that its tokens begin with, in multiples of `share_pages`."""
        if not self.may_skip:
            return []
        # The last known token is fed, so that there is something to sample from.
        usable = (len(self.tokens) - 1) // pool.page_size
        found = pool.find(self.digest(index, pool.page_size) for index in range(usable))
        return found[: len(found) // share_pages * share_pages]

    def register(self, pool: PagePool, until: int) -> None:
        """Make its pages findable that lie within its first `until` tokens and are computed."""
        full = min(until, self.computed, len(self.tokens)) // pool.page_size
        for index in range(self.registered, full):
            pool.register(self.pages[index], self.digest(index, pool.page_size))
        self.registered = max(self.registered, full)
