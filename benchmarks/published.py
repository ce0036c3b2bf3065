"""Where the figures of others come from that ours are told beside."""

from collections.abc import Mapping

M2, IRONIC = "M2", "Ironic"

SOURCES: Mapping[str, str] = {
    M2: (
        "*M2: Malleable Metal as a Service*, IC2E 2018, arXiv 1801.00540. Figure 5: API calls take 1 s for one node and"
        " 23 s for 24 at once, so 0.96 s for each more. Figure 6a: a boot reads about 170 MB of an image of"
        " 8 GB, 2.1 %."
    ),
    IRONIC: (
        "Ironic 39.0.0 with fake drivers, without authentication and RPC, measured for this project on a machine with"
        " two cores. 50 and 200 deploys at once: 89–131 ms of CPU each, without the database server's; 9 a second."  # noqa: RUF001
        " One connection reads one node 275 times a second. A list of 1,000 nodes takes 112 ms there, and 130–170 ms of"  # noqa: RUF001
        " CPU. The smallest of these stand in the tables."
    ),
}
