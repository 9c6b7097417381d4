"""What stands between the engine and every door: a text leaves as far as its guards let it."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from model.tokenizer import StreamDecoder, Tokenizer
from serving.guard import Guard, Verdict
from serving.output import join
from serving.request import Delta, GenerationRequest, TokenLogprob, Usage
from serving.stream import RequestStream

_BLACK = "█"
_VISIBLE = re.compile(r"\S")


class TokenLengths(dict[int, int | None]):
    """Token id to its characters; None for a token that is no whole characters. Filled as asked."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Of tokens within a text: one that opens a text may be a space shorter."""
        super().__init__()
        self.tokenizer = tokenizer
        self.vocab_size = tokenizer.vocab_size

    def __missing__(self, token_id: int) -> int | None:
        """Look a token up, once."""
        length: int | None = 0  # of a padding row, which has no text
        if token_id < self.vocab_size:
            try:
                data = self.tokenizer.token_bytes(token_id, at_start=False)
                length = len(data.decode("utf-8"))
            except UnicodeDecodeError:
                length = None
        self[token_id] = length
        return length


class TokenEnds:
    """For a generation's tokens, in order, the characters of its text up to each one's end.

    A token that ends within a character counts that character.
    """

    def __init__(self, lengths: TokenLengths, prompt: Sequence[int], *, echo: bool) -> None:
        """Follow a prompt's continuation, decoded as the engine decodes it."""
        self._lengths = lengths
        self.prompt_text = ""
        """The prompt's text where it is echoed, else empty."""
        tokenizer = lengths.tokenizer
        if echo:
            self._decoder = StreamDecoder(tokenizer)
            self.prompt_text = "".join(self._decoder.push(token) for token in prompt)
        else:
            is_silent = not any(tokenizer.token_bytes(token) for token in prompt)
            self._decoder = StreamDecoder(tokenizer, at_start=is_silent)
        self._end = 0
        self._note_state()

    def push(self, token_id: int) -> int:
        """The next token's end."""
        length = self._lengths[token_id]
        if self._is_between and length is not None:
            self._end += length
            return self._end
        if token_id < self._lengths.vocab_size:
            self._end += len(self._decoder.push(token_id))
            self._note_state()
        return self._end + self._is_mid

    def _note_state(self) -> None:
        self._is_mid = self._decoder.is_mid_character
        # Between whole characters the decoder need not see the whole characters that come.
        self._is_between = not (self._is_mid or self._decoder.is_at_start)


class Gate:
    """Lets one generation through. Echoed prompt text is the caller's own and is not held back."""

    def __init__(
        self,
        guards: Sequence[Guard],
        request: GenerationRequest,
        tokenizer: Tokenizer,
        ends: TokenEnds,
    ) -> None:
        """Ask all of `guards`; a text leaves as far as the strictest lets it.

        `ends` is new, and made for the request.
        """
        self._guards = guards
        self._request = request
        self._tokenizer = tokenizer
        self._ends = ends
        self._holds_back = any(guard.holds_back for guard in guards)
        self._unseen: list[Delta] = []  # that no guard was asked about yet
        self._unseen_text = ""
        self._unseen_tokens = 0
        self._text = ""  # generated so far, released or not
        self._released = 0  # characters of it that have left
        self._held: deque[tuple[int, int, int, TokenLogprob | None]] = deque()  # start, end, id
        self._last_end = 0
        self._redactions: list[tuple[int, int]] = []
        self._prompt_logprobs: tuple[TokenLogprob, ...] | None = None
        self._echo = self._ends.prompt_text
        self._tokens = 0

    async def deltas(self, generate: Callable[[], RequestStream]) -> AsyncGenerator[Delta, None]:
        """The deltas of `generate()`, watched; the last one has the guards' reports.

        Raises while iterating what the engine raises. A block closes the engine's stream, which
        ends the request.
        """
        try:
            if (refused := await self._screen()) is not None:
                yield refused
                return
            async with aclosing(generate()) as source:
                async for delta in source:
                    if not self._is_due(delta):
                        if not self._holds_back:
                            yield delta
                        continue
                    unseen, self._unseen, self._unseen_text = self._unseen, [], ""
                    self._unseen_tokens = 0
                    shown = await self._pass(join(unseen))
                    if not self._holds_back:
                        yield _with_reports(delta, shown)
                    elif shown is not None:
                        yield shown
                    if shown is not None and shown.finish_reason is not None:
                        return
        finally:
            for guard in self._guards:
                guard.abandon()

    async def _screen(self) -> Delta | None:
        """The whole answer if a guard refuses the prompt."""
        guards = [guard for guard in self._guards if guard.screens_prompt]
        if not guards:
            return None
        decoder = StreamDecoder(self._tokenizer)
        text, ends = "", []
        for token in self._request.prompt_token_ids:
            text += decoder.push(token)
            ends.append(len(text) + decoder.is_mid_character)
        text += decoder.flush()
        for guard in guards:
            verdict = await guard.screen(text, ends)
            if verdict.action == "block":
                return self._ended(Delta(), 0, guard)
        return None

    def _is_due(self, delta: Delta) -> bool:
        """Take a delta; whether it is time to ask the guards."""
        self._unseen.append(delta)
        self._unseen_text += delta.text
        self._unseen_tokens += len(delta.token_ids)
        if delta.finish_reason is not None:
            return True
        return any(guard.is_due(self._unseen_text, self._unseen_tokens) for guard in self._guards)

    async def _pass(self, delta: Delta) -> Delta | None:
        """What may leave now; None if that is nothing."""
        if delta.finish_reason in ("abort", "error"):
            return delta
        new_text = delta.text
        if delta.prompt_logprobs is not None:
            self._prompt_logprobs = delta.prompt_logprobs
        if self._echo and not self._tokens and not self._text:
            new_text = new_text.removeprefix(self._echo)
        new_tokens = self._take_tokens(delta)
        is_last = delta.finish_reason is not None
        verdicts = await self._inspect(new_text, new_tokens, is_last=is_last)
        self._text += new_text
        for verdict in verdicts:
            self._redactions.extend(verdict.redactions)
        for guard, verdict in zip(self._guards, verdicts, strict=True):
            if verdict.action == "block":
                return self._ended(delta, await self._end_before(verdict, verdicts), guard)
        if is_last:
            return self._release(delta, len(self._text), is_whole=True)
        upto = min(verdict.release_upto for verdict in verdicts)
        if upto <= self._released and not self._echo and self._prompt_logprobs is None:
            return None
        return self._release(delta, upto, is_whole=False)

    async def _inspect(
        self, new_text: str, new_tokens: Sequence[tuple[int, int]], *, is_last: bool
    ) -> list[Verdict]:
        asked = [
            guard.inspect(self._text, new_text, new_tokens, is_last=is_last)
            for guard in self._guards
        ]
        return [await asked[0]] if len(asked) == 1 else list(await asyncio.gather(*asked))

    async def _end_before(self, block: Verdict, verdicts: Sequence[Verdict]) -> int:
        """Characters that may leave of a text that a guard ends: the others decide the rest now."""
        upto = block.release_upto
        for guard, verdict in zip(self._guards, verdicts, strict=True):
            if verdict.action != "block" and verdict.release_upto < upto:
                verdict = await guard.inspect(self._text, "", (), is_last=True)
                self._redactions.extend(verdict.redactions)
            upto = min(upto, verdict.release_upto)
        return max(upto, self._released)

    def _take_tokens(self, delta: Delta) -> list[tuple[int, int]]:
        found = []
        for index, token_id in enumerate(delta.token_ids):
            end = self._ends.push(token_id)
            logprob = None if delta.logprobs is None else delta.logprobs[index]
            self._held.append((self._last_end, end, token_id, logprob))
            self._last_end = end
            found.append((token_id, end))
        self._tokens += len(found)
        return found

    def _release(self, delta: Delta, upto: int, *, is_whole: bool) -> Delta:
        """Everything up to a character, blacked out where a guard says so."""
        text = self._blacked_out(self._released, upto)
        self._released = max(self._released, upto)
        token_ids: list[int] = []
        logprobs: list[TokenLogprob] = []
        while self._held and (is_whole or self._held[0][1] <= upto):
            start, end, token_id, logprob = self._held.popleft()
            if any(low < end and start < high for low, high in self._redactions):
                continue
            token_ids.append(token_id)
            if logprob is not None:
                logprobs.append(logprob)
        echo, self._echo = self._echo, ""
        prompt_logprobs, self._prompt_logprobs = self._prompt_logprobs, None
        return Delta(
            text=echo + text,
            token_ids=tuple(token_ids),
            logprobs=None if self._request.params.logprobs is None else tuple(logprobs),
            prompt_logprobs=prompt_logprobs,
            finish_reason=delta.finish_reason,
            stop_reason=delta.stop_reason,
            usage=delta.usage,
            reports=None if delta.finish_reason is None else self._reports(),
        )

    def _ended(self, delta: Delta, upto: int, guard: Guard) -> Delta:
        """The last delta of a generation that a guard ends after so many characters."""
        usage = Usage(
            prompt_tokens=len(self._request.prompt_token_ids), completion_tokens=self._tokens
        )
        shown = self._release(delta, upto, is_whole=False)
        return Delta(
            text=shown.text,
            token_ids=shown.token_ids,
            logprobs=shown.logprobs,
            prompt_logprobs=shown.prompt_logprobs,
            finish_reason="content_filter",
            stop_reason=guard.name,
            usage=usage,
            reports=self._reports(),
        )

    def _reports(self) -> dict[str, dict[str, object]]:
        return {guard.name: guard.report() for guard in self._guards}

    def _blacked_out(self, start: int, end: int) -> str:
        pieces = []
        for low, high in sorted(self._redactions):
            low, high = max(low, start), min(high, end)
            if low < high:
                pieces += [self._text[start:low], _VISIBLE.sub(_BLACK, self._text[low:high])]
                start = high
        return "".join((*pieces, self._text[start:end]))


def _with_reports(delta: Delta, shown: Delta | None) -> Delta:
    """A delta that was not held back, with what guards found if it is the last."""
    if shown is None or shown.reports is None:
        return delta
    return dataclasses.replace(delta, reports=shown.reports)
