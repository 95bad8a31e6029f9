"""Builds the gRPC server: credentials, limits, services, reflection."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.longrunning import operations_pb2_grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from penstock.v1 import bulk_pb2_grpc, inference_pb2_grpc, model_pb2_grpc, schedule_pb2_grpc
from penstock_server.api.bulk import BulkServicer
from penstock_server.api.health import SERVICES, HealthReporter
from penstock_server.api.interceptors import EdgeInterceptor
from penstock_server.api.operations import OperationsServicer
from penstock_server.config import ServerConfig, TlsConfig
from penstock_server.domain.errors import InvalidRequest

_OPERATIONS = "google.longrunning.Operations"


@dataclass(frozen=True, slots=True)
class Services:
    """What the server answers."""

    inference: inference_pb2_grpc.InferenceServiceServicer
    bulk: BulkServicer
    schedules: schedule_pb2_grpc.ScheduleServiceServicer
    models: model_pb2_grpc.ModelServiceServicer
    health: HealthReporter


def build_server(
    config: ServerConfig, services: Services, edge: EdgeInterceptor
) -> tuple[grpc.aio.Server, int]:
    """Builds the server and binds its port.

    Returns:
        The server, not started, and the port it is bound to.

    Raises:
        InvalidRequest: The port is taken, or the TLS files cannot be read.
    """
    options = [
        ("grpc.max_receive_message_length", config.requests.message_bytes_max),
        ("grpc.max_send_message_length", config.requests.message_bytes_max),
        # Two servers on one port would share its connections at random.
        ("grpc.so_reuseport", 0),
        # Live streams may be silent for minutes; clients may ping to keep middleboxes awake.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # A client that vanished without a word is noticed, and its streams end.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
    ]
    server = grpc.aio.server(
        interceptors=[edge], options=options, maximum_concurrent_rpcs=config.requests.concurrent_rpcs_max
    )
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(services.inference, server)
    bulk_pb2_grpc.add_BulkServiceServicer_to_server(services.bulk, server)
    schedule_pb2_grpc.add_ScheduleServiceServicer_to_server(services.schedules, server)
    operations: Any = operations_pb2_grpc
    operations.add_OperationsServicer_to_server(OperationsServicer(services.bulk), server)
    model_pb2_grpc.add_ModelServiceServicer_to_server(services.models, server)
    untyped: Any = health_pb2_grpc
    untyped.add_HealthServicer_to_server(services.health.servicer, server)
    names = (*SERVICES, _OPERATIONS, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    return server, _bind(server, config)


def _bind(server: grpc.aio.Server, config: ServerConfig) -> int:
    address = f"{config.host}:{config.port}"
    try:
        if config.tls is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, _credentials(config.tls))
    except RuntimeError as err:
        raise InvalidRequest(
            f"Cannot listen on {address}: the port is taken or the address is not of this machine. "
            "Choose another with --port (0 for any free port)."
        ) from err


def _credentials(tls: TlsConfig) -> grpc.ServerCredentials:
    pair = (_read(tls.private_key), _read(tls.certificate))
    if tls.client_ca is None:
        return grpc.ssl_server_credentials([pair])
    return grpc.ssl_server_credentials([pair], _read(tls.client_ca), require_client_auth=True)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as err:
        raise InvalidRequest(f"Cannot read the TLS file {path}: {err.strerror}.") from err
