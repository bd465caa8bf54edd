"""The services there are, and what each needs to be started. A new service is added here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from local.keys import LocalKeys
from local.ports import ServicePorts


def _no_keys(_keys: LocalKeys) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True)
class ServiceSpec:
    """One service: its module, its documented ports, and what it needs beyond what all need."""

    name: str
    module: str
    ports: ServicePorts
    peers: tuple[str, ...] = ()
    """Services it calls; it finds each under DAOGOU_<NAME>_TARGET."""
    key_files: Callable[[LocalKeys], Mapping[str, str]] = _no_keys
    """Environment that names its key files."""


def _members_keys(keys: LocalKeys) -> Mapping[str, str]:
    return {
        "DAOGOU_PII_KEYS_FILE": str(keys.pii_file),
        "DAOGOU_GUIDE_CODE_KEYS_FILE": str(keys.guide_code_file),
    }


def _commission_keys(keys: LocalKeys) -> Mapping[str, str]:
    return {"DAOGOU_PII_KEYS_FILE": str(keys.pii_file)}


# In the order in which they are started; they are stopped in the reverse.
SERVICES: Final = (
    ServiceSpec("members", "svc_members", ServicePorts(50051, 50151, 9151), key_files=_members_keys),
    ServiceSpec(
        "commission",
        "svc_commission",
        ServicePorts(50052, 50152, 9152),
        peers=("members",),
        key_files=_commission_keys,
    ),
)

# Not among them: it belongs to the vision service, and needs nobody's database.
EMBEDDER: Final = ServiceSpec("embedder", "svc_vision.embedder", ServicePorts(50064, 50164, 9164))
