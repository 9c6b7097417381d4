import asyncio
import io
import re

from rich.console import Console

from api.batch.progress import BatchProgress, Pace


def test_rates_are_those_of_the_last_half_minute():
    pace = Pace(100.0)
    assert pace.rates(100.0) == (0, 0)
    for second in range(101, 111):
        pace.add(second, 20)
    assert pace.rates(110.0) == (1, 20)
    for second in range(150, 160):
        pace.add(second, 40)
    lines_per_s, tokens_per_s = pace.rates(160.0)
    assert (lines_per_s, tokens_per_s) == (10 / 30, 400 / 30)


def show(is_terminal):
    out = io.StringIO()
    progress = BatchProgress(4, 1, Console(file=out, force_terminal=is_terminal, width=100))

    async def run():
        async with progress.shown():
            await asyncio.sleep(0)
            progress.answered(5, is_error=False)
            progress.answered(0, is_error=True)

    asyncio.run(run())
    return out.getvalue()


def test_elsewhere_than_in_a_terminal_there_are_plain_lines():
    first, last = show(is_terminal=False).splitlines()
    assert first.startswith("1/4 lines, 0 tokens/s, ETA ?")
    assert last.startswith("2/4 lines, 1 failed, ")
    assert "\x1b" not in first + last


def test_where_no_model_answers_the_pace_is_of_things():
    progress = BatchProgress(4, 0, Console(file=io.StringIO()), "units", has_tokens=False)
    progress.answered(0, is_error=False)
    assert re.fullmatch(r"1/4 units, \d+\.\d units/s, ETA \d:\d\d:\d\d", progress.line())


def test_in_a_terminal_there_is_a_bar():
    text = show(is_terminal=True)
    assert "1/4" in text
    assert "━" in text
    assert "2/4 lines, 1 failed, " in text.rstrip().splitlines()[-1]
