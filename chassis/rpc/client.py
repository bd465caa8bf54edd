"""How one service calls another: balanced over ready replicas, signed, traced, UNAVAILABLE retried.

A channel from here loses no call while the other side restarts replica by replica: it follows their health
and retries what no replica has taken on. What may have run is never retried here: receivers deduplicate on
natural keys, and their callers decide. A stream is retried until its first message has come and never after:
it ends with UNAVAILABLE, or with its token, and whoever reads it resumes where he was.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import grpc
import jwt
import orjson

from chassis.rpc import call

TOKEN_TTL_S: Final = 300
_RENEW_BEFORE_S: Final = 60

_SERVICE_CONFIG: Final = orjson.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": ""},
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
    }
).decode()


class ServiceToken:
    """Signs the tokens with which a service names itself, and keeps each for most of its life."""

    def __init__(self, key_file: Path, service: str, audience: str) -> None:
        key = orjson.loads(key_file.read_bytes())
        self._key = jwt.PyJWK(key)
        self._kid: str = key["kid"]
        self._service = service
        self._audience = audience
        self._token = ""
        self._renew_time_s = 0.0

    def __call__(self) -> str:
        """A token that is good for at least another minute."""
        now_s = time.time()
        if now_s >= self._renew_time_s:
            claims = {
                "iss": self._service,
                "sub": self._service,
                "aud": self._audience,
                "role": "SERVICE",
                "iat": int(now_s),
                "exp": int(now_s) + TOKEN_TTL_S,
            }
            self._token = jwt.encode(claims, self._key, algorithm="EdDSA", headers={"kid": self._kid})
            self._renew_time_s = now_s + TOKEN_TTL_S - _RENEW_BEFORE_S
        return self._token


class _Signed(grpc.aio.UnaryUnaryClientInterceptor):
    """Adds the token and the trace to each call."""

    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    async def intercept_unary_unary(
        self, continuation: Any, client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        return await continuation(_signed(client_call_details, self._token()), request)


class _SignedStream(grpc.aio.UnaryStreamClientInterceptor):
    """The same for streams: gRPC asks each interceptor for one kind of call alone."""

    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    async def intercept_unary_stream(
        self, continuation: Any, client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        return await continuation(_signed(client_call_details, self._token()), request)


def _signed(details: grpc.aio.ClientCallDetails, token: str) -> grpc.aio.ClientCallDetails:
    metadata = grpc.aio.Metadata(*(details.metadata or ()))
    metadata.add("authorization", f"Bearer {token}")
    metadata.add("traceparent", call.traceparent())
    return grpc.aio.ClientCallDetails(
        method=details.method,
        timeout=details.timeout,
        metadata=metadata,
        credentials=details.credentials,
        wait_for_ready=details.wait_for_ready,
    )


def connect(target: str, token: Callable[[], str]) -> grpc.aio.Channel:
    """A channel to a service, at HOST:PORT or any address that gRPC resolves (dns:///name:port)."""
    return grpc.aio.insecure_channel(
        target,
        options=[
            ("grpc.service_config", _SERVICE_CONFIG),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2_000),
            ("grpc.max_receive_message_length", 16 << 20),
        ],
        interceptors=[_Signed(token), _SignedStream(token)],
    )
