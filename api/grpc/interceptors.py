"""What stands before every call: API keys, and an answer to bytes that are no message."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from api.errors import AuthenticationError
from api.grpc.errors import abort
from api.keys import ApiKeys
from serving.errors import RequestError

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Continuation: TypeAlias = Callable[[grpc.HandlerCallDetails], Awaitable["_Handler | None"]]

# Health and reflection stay open, as /health and /docs do.
_OURS = "/talipot."


class RequireApiKey(grpc.aio.ServerInterceptor):
    """Refuses calls of the model's service that carry no known key."""

    def __init__(self, keys: ApiKeys) -> None:
        """Accept `keys`."""
        self._keys = keys

    async def intercept_service(
        self, continuation: _Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> _Handler | None:
        """The handler of the call, or one that refuses it; None where there is none."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(_OURS):
            return handler
        metadata = dict(handler_call_details.invocation_metadata or ())
        try:
            self._keys.check_authorization(str(metadata.get("authorization", "")))
        except AuthenticationError as error:
            refusal = error

            async def refuse(_: Any, context: _Context) -> NoReturn:
                await abort(context, refusal)

            # Without a deserializer: what a stranger sends is not even parsed.
            return _remade(handler, refuse, None)
        return handler


class RefuseGarbage(grpc.aio.ServerInterceptor):
    """Answers bytes that are no message with INVALID_ARGUMENT.

    gRPC itself answers UNKNOWN, with the exception's text, and logs a traceback. In a stream of
    requests the reader of the stream does this.
    """

    async def intercept_service(
        self, continuation: _Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> _Handler | None:
        """The handler of the call, behind a parser that does not raise."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming or handler.request_deserializer is None:
            return handler
        if not handler_call_details.method.startswith(_OURS):
            return handler
        parse = handler.request_deserializer
        # The types know of synchronous handlers alone; ours are coroutines.
        answer: Any = handler.unary_stream if handler.response_streaming else handler.unary_unary

        def parse_or_error(data: bytes) -> Any:
            try:
                return parse(data)
            except DecodeError as error:
                return error

        async def answer_or_refuse(request: Any, context: _Context) -> Any:
            if isinstance(request, DecodeError):
                await abort(context, no_message())
            return await answer(request, context)

        return _remade(handler, answer_or_refuse, parse_or_error)


def no_message() -> RequestError:
    """The error for bytes that are no message of the call's kind."""
    return RequestError("the bytes sent are no message of this call; see its proto")


def _remade(
    handler: _Handler,
    behaviour: Callable[[Any, _Context], Awaitable[Any]],
    deserializer: Callable[[bytes], Any] | None,
) -> _Handler:
    """A handler of the same kind, which a client of that kind expects, that does something else."""
    make: Callable[..., _Handler] = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    return make(behaviour, deserializer, handler.response_serializer)
