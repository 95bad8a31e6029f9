"""How a channel is set up: service config, message sizes, credentials."""

from __future__ import annotations

import json

import grpc
import grpc.aio

MESSAGE_BYTES_MAX = 64 * 1024 * 1024

# Retried by gRPC when the server was not reached or said UNAVAILABLE before it answered anything. Upload
# resumes by offset instead, and repeating the other calls left out would fail where the first succeeded, or,
# for RunSchedule, not tell the jobs that the first one made.
_RETRIED = {
    "penstock.v1.InferenceService": ("Embed", "Classify", "Tag", "Rerank", "Tokenize", "Stream"),
    "penstock.v1.BulkService": (
        "GetUpload", "CreateJob", "GetJob", "ListJobs", "WatchJob", "ReadResults", "CancelJob",
        "RetryFailedRows",
    ),
    "penstock.v1.ScheduleService": (
        "CreateSchedule", "GetSchedule", "ListSchedules", "PauseSchedule", "ResumeSchedule",
    ),
    "penstock.v1.ModelService": ("ListModels", "GetModel"),
    "grpc.health.v1.Health": ("Check",),
}  # fmt: skip
_RETRY_POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "2s",
    "backoffMultiplier": 3,
    "retryableStatusCodes": ["UNAVAILABLE"],
}

TlsSetting = bool | bytes | grpc.ChannelCredentials


def service_config() -> str:
    """Returns gRPC's service config with our retry policy, as JSON."""
    names = [
        {"service": service, "method": method} for service, methods in _RETRIED.items() for method in methods
    ]
    return json.dumps({"methodConfig": [{"name": names, "retryPolicy": _RETRY_POLICY}]})


def channel_options() -> list[tuple[str, str | int]]:
    """Returns the options of every channel."""
    return [
        ("grpc.service_config", service_config()),
        ("grpc.enable_retries", 1),
        # The default of 4 MiB is less than 1,024 vectors of 1,024 dimensions.
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        # A server that has just started is found at once.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 5000),
    ]


def open_channel(address: str, tls: TlsSetting) -> grpc.Channel:
    """Opens a channel; nothing is connected yet."""
    if tls is False:
        return grpc.insecure_channel(address, options=channel_options())
    return grpc.secure_channel(address, _credentials(tls), options=channel_options())


def open_aio_channel(address: str, tls: TlsSetting) -> grpc.aio.Channel:
    """Opens a channel on the running event loop; nothing is connected yet."""
    if tls is False:
        return grpc.aio.insecure_channel(address, options=channel_options())
    return grpc.aio.secure_channel(address, _credentials(tls), options=channel_options())


def _credentials(tls: TlsSetting) -> grpc.ChannelCredentials:
    if isinstance(tls, grpc.ChannelCredentials):
        return tls
    return grpc.ssl_channel_credentials(tls if isinstance(tls, bytes) else None)
