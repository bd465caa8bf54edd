"""What we are held against: the floor nothing can beat, and the peer a user would pick instead.

Each is written as its own users would write it, and does the same work on the same data.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import grpc
import jwt
from prometheus_client import CollectorRegistry, Counter, Histogram

if TYPE_CHECKING:
    # The servers of `rpc` are to load no driver.
    from chassis.mongo.connection import Collection, Document

Behaviour = Callable[[Any, Any], Awaitable[Any]]
RpcHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[RpcHandler | None]]"

OPTIONS: Final = (("grpc.so_reuseport", 0),)


# ---- rpc: the bare echo ----------------------------------------------------------------------------


def bare_server(service: str, handlers: Mapping[str, RpcHandler]) -> grpc.aio.Server:
    """Floor of `rpc`: grpc.aio with these methods and nothing around them.

    Generic handlers: with `add_registered_method_handlers` grpc.aio waits anew for every registered method
    whenever a call arrives.
    """
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, dict(handlers)),))
    return server


# ---- rpc: the interceptors of grpc.aio -------------------------------------------------------------

REGISTRY: Final = CollectorRegistry()
_LABELS: Final = ("grpc_service", "grpc_method")
_HANDLED: Final = Counter(
    "grpc_server_handled_total", "Calls ended.", (*_LABELS, "grpc_code"), registry=REGISTRY
)
_HANDLING: Final = Histogram("grpc_server_handling_seconds", "Time taken.", _LABELS, registry=REGISTRY)
_claims: ContextVar[dict[str, Any]] = ContextVar("claims")


def intercepted_server(
    service: str, handlers: Mapping[str, RpcHandler], *, jwks_file: Path, audience: str
) -> grpc.aio.Server:
    """Peer of `rpc`: what one gets by putting together PyJWT, logging and prometheus-client as they come.

    One `grpc.aio.ServerInterceptor` each for metrics, the access log and authentication; the caller's brand
    is compared to the request's in the last.
    """
    server = grpc.aio.server(
        options=OPTIONS, interceptors=[_Metrics(), _AccessLog(), _Authentication(jwks_file, audience)]
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, dict(handlers)),))
    return server


async def _inner(
    continuation: Continuation, details: grpc.HandlerCallDetails
) -> tuple[Behaviour, Callable[[Behaviour], RpcHandler]]:
    """What a call would do without this interceptor, and how to put something else in its place."""
    handler = await continuation(details)
    assert handler is not None

    def replaced(behaviour: Behaviour) -> RpcHandler:
        return grpc.unary_unary_rpc_method_handler(
            behaviour,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    return cast("Behaviour", handler.unary_unary), replaced


def _code(context: Any) -> str:
    code = context.code()
    return code.name if isinstance(code, grpc.StatusCode) else "OK"


class _Metrics(grpc.aio.ServerInterceptor):
    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> RpcHandler:
        behaviour, replaced = await _inner(continuation, handler_call_details)
        _, service, method = handler_call_details.method.split("/")

        async def measured(request: Any, context: Any) -> Any:
            began = time.perf_counter()
            try:
                return await behaviour(request, context)
            finally:
                _HANDLING.labels(service, method).observe(time.perf_counter() - began)
                _HANDLED.labels(service, method, _code(context)).inc()

        return replaced(measured)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(
            {
                "timestamp": self.formatTime(record),
                "level": record.levelname.lower(),
                "event": record.getMessage(),
                **record.__dict__["call"],
            }
        )


class _AccessLog(grpc.aio.ServerInterceptor):
    def __init__(self) -> None:
        to_stdout = logging.StreamHandler(sys.stdout)
        to_stdout.setFormatter(_JsonFormatter())
        self._log = logging.getLogger("access")
        self._log.addHandler(to_stdout)
        self._log.setLevel(logging.INFO)
        self._log.propagate = False

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> RpcHandler:
        behaviour, replaced = await _inner(continuation, handler_call_details)
        trace = dict(handler_call_details.invocation_metadata).get("traceparent", "")

        async def logged(request: Any, context: Any) -> Any:
            began = time.perf_counter()
            try:
                return await behaviour(request, context)
            finally:
                call = {
                    "method": handler_call_details.method,
                    "code": _code(context),
                    "ms": round((time.perf_counter() - began) * 1000, 2),
                    "trace_id": str(trace)[3:35],
                    "caller": _claims.get({}).get("sub"),
                    "brand_id": _claims.get({}).get("brand_id"),
                }
                self._log.info("call", extra={"call": call})

        return replaced(logged)


class _Authentication(grpc.aio.ServerInterceptor):
    def __init__(self, jwks_file: Path, audience: str) -> None:
        self._keys = {
            key.key_id: key for key in jwt.PyJWKSet.from_json(jwks_file.read_text(encoding="utf-8")).keys
        }
        self._audience = audience

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> RpcHandler:
        behaviour, replaced = await _inner(continuation, handler_call_details)
        bearer = str(dict(handler_call_details.invocation_metadata).get("authorization", ""))

        async def authenticated(request: Any, context: Any) -> Any:
            claims: dict[str, Any] = {}
            try:
                token = bearer.removeprefix("Bearer ")
                key = self._keys[jwt.get_unverified_header(token).get("kid")]
                claims = jwt.decode(token, key, algorithms=["EdDSA", "RS256"], audience=self._audience)
            except (jwt.PyJWTError, KeyError):
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no valid token")
            _claims.set(claims)
            if claims.get("brand_id") != request.brand_id:
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, "another brand")
            return await behaviour(request, context)

        return replaced(authenticated)


# ---- members: the documents themselves -------------------------------------------------------------


async def found_by_ids(collection: Collection, ids: list[str]) -> list[Document]:
    """Floor of `members`, asking: what must be read to know anything of these, whole, in one command."""
    # Room for one more than there are: a batch that comes back full makes the driver ask for another.
    return await collection.find({"_id": {"$in": ids}}, batch_size=len(ids) + 1).to_list(None)


async def found_and_updated(collection: Collection, document_id: str) -> Document:
    """Floor of `members`, scanning: what must be read to decide, and one guarded write of the decision."""
    found = await collection.find_one({"_id": document_id})
    assert found is not None, "floors are given documents that are there"
    guard = {"_id": document_id, "rev": found["rev"]}
    updated = await collection.update_one(guard, {"$inc": {"rev": 1}})
    assert updated.modified_count == 1, "nobody else writes these documents"
    return found
