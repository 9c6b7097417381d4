"""API keys in the metadata of calls, as HTTP has them in its header."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import grpc
import grpc.aio

from api.errors import AuthenticationError
from api.grpc.errors import abort
from api.keys import ApiKeys

# Health and reflection stay open, as /health and /docs do.
_PROTECTED = "/talipot."


class RequireApiKey(grpc.aio.ServerInterceptor):
    """Refuses calls of the model's service that carry no known key."""

    def __init__(self, keys: ApiKeys) -> None:
        """Accept `keys`."""
        self._keys = keys

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of the call, or one that refuses it; None where there is none."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(_PROTECTED):
            return handler
        metadata = dict(handler_call_details.invocation_metadata or ())
        try:
            self._keys.check_authorization(str(metadata.get("authorization", "")))
        except AuthenticationError as error:
            return _refusal(handler, error)
        return handler


def _refusal(
    handler: grpc.RpcMethodHandler[Any, Any], error: AuthenticationError
) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler of the same kind, which a client of that kind expects."""

    async def refuse(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
        await abort(context, error)

    make: Callable[..., grpc.RpcMethodHandler[Any, Any]] = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    return make(refuse)  # without a deserializer: what a stranger sends is not even parsed
