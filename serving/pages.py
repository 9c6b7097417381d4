"""Who holds which page of the key/value cache, and what can be found again in pages nobody holds.

Pure bookkeeping, no arrays. A page that is full of known tokens can be registered under the digest
of all tokens up to its end; a later request whose prompt begins with the same tokens takes it over
instead of computing it. A registered page that nobody holds stays findable until its place is
needed: least recently used first, and the end of a prefix before its beginning.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from serving.errors import InvariantError

_DIGEST_BYTES = 16


def next_digest(previous: bytes, token_ids: Sequence[int]) -> bytes:
    """The digest of a page's tokens and all before them, whose digest is `previous`."""
    content = array("I", token_ids).tobytes()
    return hashlib.blake2b(previous + content, digest_size=_DIGEST_BYTES).digest()


class PagePool:
    """Pages 1 … num_pages - 1; page 0 is the scratch page and is never given out."""

    def __init__(self, num_pages: int, page_size: int) -> None:
        """All pages free and empty."""
        if num_pages < 2:
            raise ValueError(f"num_pages={num_pages} must be at least 2: one is the scratch page")
        self.num_pages = num_pages
        self.page_size = page_size
        self._free = list(range(num_pages - 1, 0, -1))  # a stack: low pages first
        self._holders = [0] * num_pages
        self._page_of: dict[bytes, int] = {}
        self._digest_of: dict[int, bytes] = {}
        self._idle: OrderedDict[int, None] = (
            OrderedDict()
        )  # registered, held by nobody; oldest first

    @property
    def capacity(self) -> int:
        """Pages that can be held."""
        return self.num_pages - 1

    @property
    def available(self) -> int:
        """Pages that `allocate` can give out now."""
        return len(self._free) + len(self._idle)

    @property
    def held(self) -> int:
        """Pages that somebody holds."""
        return self.capacity - self.available

    @property
    def findable(self) -> int:
        """Pages that are registered."""
        return len(self._page_of)

    def allocate(self, count: int) -> list[int]:
        """Hold `count` pages of unknown content; evicts registered ones only when it must.

        Raises:
            ValueError: Fewer are available.
        """
        if count > self.available:
            raise ValueError(f"{count} pages wanted, {self.available} available")
        return [self._take() for _ in range(count)]

    def find(self, digests: Iterable[bytes]) -> list[int]:
        """The pages registered under the first digests, up to the first that is not; not held."""
        pages = []
        for digest in digests:
            page = self._page_of.get(digest)
            if page is None:
                break
            pages.append(page)
        return pages

    def hold(self, pages: Iterable[int]) -> None:
        """Hold pages that `find` named, once more."""
        for page in pages:
            self._idle.pop(page, None)
            self._holders[page] += 1

    def release(self, pages: Sequence[int]) -> None:
        """Hold pages once less; `pages` are in the order of a sequence."""
        for page in reversed(pages):
            self._holders[page] -= 1
            if self._holders[page] == 0:
                if page in self._digest_of:
                    self._idle[page] = None
                else:
                    self._free.append(page)

    def register(self, page: int, digest: bytes) -> None:
        """Make a held page findable, now that it is computed; the first of equals stays."""
        if digest not in self._page_of and page not in self._digest_of:
            self._page_of[digest] = page
            self._digest_of[page] = digest

    def check(self, held: Iterable[Sequence[int]]) -> None:
        """Balance the books against the pages that each holder says it has.

        Raises:
            InvariantError: A page is lost, held by too many or too few, or found by a wrong digest.
        """
        counts = [0] * self.num_pages
        for pages in held:
            for page in pages:
                counts[page] += 1
        unheld = [page for page in range(1, self.num_pages) if not counts[page]]
        by_digest = {page: digest for digest, page in self._page_of.items()}
        for name, holds in (
            ("holders", counts == self._holders),
            ("free and idle pages", sorted([*self._free, *self._idle]) == unheld),
            ("digests", by_digest == self._digest_of),
            ("idle pages", self._digest_of.keys() >= self._idle.keys()),
        ):
            if not holds:
                raise InvariantError(
                    f"pages: {name} do not balance: holders {self._holders}, expected {counts}, "
                    f"free {self._free}, idle {list(self._idle)}"
                )

    def _take(self) -> int:
        if not self._free:
            self._evict()
        page = self._free.pop()
        self._holders[page] = 1
        return page

    def _evict(self) -> None:
        page, _ = self._idle.popitem(last=False)
        del self._page_of[self._digest_of.pop(page)]
        self._free.append(page)
