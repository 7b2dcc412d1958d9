"""A Ray of three nodes on this machine."""

import os

import pytest

STORE = 80 << 20


@pytest.fixture(scope="session")
def nodes(tmp_path_factory):
    """Cluster of three nodes with one CPU each; the head is the first."""
    pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False},
    )
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=STORE)
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()
