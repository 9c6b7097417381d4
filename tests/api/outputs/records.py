"""Records for tests."""

import time

from api.outputs.record import OutputRecord


def record(call: str = "cmpl-1", index: int = 0, choices: int = 1, **fields) -> OutputRecord:
    return OutputRecord(
        **{
            "call": call,
            "index": index,
            "choices": choices,
            "created_s": time.time(),
            "model": "tiny",
            "prompt": "It was",
            "prompt_token_ids": (1, 2),
            "text": f"the text of {call}",
            "token_ids": (3, 4, 5),
            "finish_reason": "length",
            **fields,
        }
    )


def records(count: int) -> list[OutputRecord]:
    return [record(f"cmpl-{number}") for number in range(count)]
