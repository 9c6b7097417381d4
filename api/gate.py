"""What stands between the engine and every door: a text leaves as far as its guards let it."""

from __future__ import annotations

import asyncio
import bisect
import dataclasses
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from api.token_ends import TokenEnds
from model.tokenizer import StreamDecoder, Tokenizer
from serving.guard import Guard, Verdict
from serving.output import join
from serving.request import Delta, GenerationRequest, TokenLogprob, Usage
from serving.stream import RequestStream

_BLACK = "█"
_VISIBLE = re.compile(r"\S")


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
        self._token_ids: list[int] = []  # where text is held back: all that were generated
        self._token_ends: list[int] = []
        self._logprobs: list[TokenLogprob] = []
        self._released_tokens = 0
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
                    if not self._holds_back:
                        yield await self._watch(delta, join(unseen))
                        continue
                    shown = await self._pass(join(unseen))
                    if shown is not None:
                        yield shown
                        if shown.finish_reason is not None:
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

    async def _watch(self, delta: Delta, unseen: Delta) -> Delta:
        """A delta that leaves whatever guards say of it, with what they found if it is the last."""
        if delta.finish_reason in ("abort", "error"):
            return delta
        await self._look(unseen)
        if delta.finish_reason is None:
            return delta
        return dataclasses.replace(delta, reports=self._reports())

    async def _pass(self, delta: Delta) -> Delta | None:
        """What may leave now; None if that is nothing."""
        if delta.finish_reason in ("abort", "error"):
            return delta
        if delta.prompt_logprobs is not None:
            self._prompt_logprobs = delta.prompt_logprobs
        verdicts = await self._look(delta)
        for verdict in verdicts:
            self._redactions.extend(verdict.redactions)
        for guard, verdict in zip(self._guards, verdicts, strict=True):
            if verdict.action == "block":
                return self._ended(delta, await self._end_before(verdict, verdicts), guard)
        if delta.finish_reason is not None:
            return self._release(delta, len(self._text), is_whole=True)
        upto = min(verdict.release_upto for verdict in verdicts)
        if upto <= self._released and not self._echo and self._prompt_logprobs is None:
            return None
        return self._release(delta, upto, is_whole=False)

    async def _look(self, delta: Delta) -> list[Verdict]:
        """Take what came and ask every guard."""
        new_text = delta.text
        if self._echo and not self._tokens and not self._text:
            new_text = new_text.removeprefix(self._echo)
        ends = self._ends.extend(delta.token_ids)
        self._tokens += len(ends)
        if self._holds_back:
            self._token_ids += delta.token_ids
            self._token_ends += ends
            self._logprobs += delta.logprobs or ()
        new_tokens = list(zip(delta.token_ids, ends, strict=True))
        verdicts = await self._inspect(
            new_text, new_tokens, is_last=delta.finish_reason is not None
        )
        self._text += new_text
        return verdicts

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

    def _release(self, delta: Delta, upto: int, *, is_whole: bool) -> Delta:
        """Everything up to a character, blacked out where a guard says so."""
        text = self._blacked_out(self._released, upto)
        self._released = max(self._released, upto)
        left = self._leaving_tokens(upto, is_whole=is_whole)
        echo, self._echo = self._echo, ""
        prompt_logprobs, self._prompt_logprobs = self._prompt_logprobs, None
        return Delta(
            text=echo + text,
            token_ids=tuple(map(self._token_ids.__getitem__, left)),
            logprobs=(
                None
                if self._request.params.logprobs is None
                else tuple(self._logprobs[index] for index in left)
            ),
            prompt_logprobs=prompt_logprobs,
            finish_reason=delta.finish_reason,
            stop_reason=delta.stop_reason,
            usage=delta.usage,
            reports=None if delta.finish_reason is None else self._reports(),
        )

    def _leaving_tokens(self, upto: int, *, is_whole: bool) -> Sequence[int]:
        """The next tokens that leave with the text, without those of which a part is redacted."""
        first, ends = self._released_tokens, self._token_ends
        count = len(ends) if is_whole else bisect.bisect_right(ends, upto, first)
        self._released_tokens = count
        if not self._redactions:
            return range(first, count)
        return [
            index
            for index in range(first, count)
            if not any(
                low < ends[index] and (ends[index - 1] if index else 0) < high
                for low, high in self._redactions
            )
        ]

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
