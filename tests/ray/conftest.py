from __future__ import annotations

from collections.abc import Generator
from importlib import import_module
from typing import Any

import pytest

from penstock_server.ray.errors import RayMissing
from penstock_server.ray.library import load_ray

NODES = 3
# Of each node. Hardly anything goes through its store: texts and answers do not.
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}


@pytest.fixture(scope="session")
def store() -> Generator[Any]:
    """The files of an S3 server on this machine, which this process and all nodes find by the environment."""
    moto: Any = import_module("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            environment.setenv(name, value)
        s3fs: Any = import_module("s3fs")
        yield s3fs.S3FileSystem(endpoint_url=f"http://{host}:{port}", skip_instance_cache=True)
    server.stop()


@pytest.fixture(scope="session")
def cluster(store: Any) -> Generator[Any]:
    """A cluster of nodes with a CPU each, to which this process is connected."""
    try:
        ray = load_ray()
    except RayMissing as missing:
        pytest.skip(missing.message)
    utils: Any = import_module("ray.cluster_utils")
    with pytest.MonkeyPatch.context() as environment:
        # No file in the home of whoever runs the tests; the nodes listen on this machine only.
        environment.setenv("RAY_AUTH_MODE", "disabled")
        found = utils.Cluster(initialize_head=True, head_node_args=NODE)
        for _ in range(NODES - 1):
            found.add_node(**NODE)
        ray.init(address=found.address, log_to_driver=False)
        yield found
        ray.shutdown()
        found.shutdown()
