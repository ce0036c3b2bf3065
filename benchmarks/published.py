"""Where the figures of others come from that ours are told beside."""

from collections.abc import Mapping

M2, IRONIC, HIL = "M2", "Ironic", "HIL"

SOURCES: Mapping[str, str] = {
    M2: (
        "*M2: Malleable Metal as a Service*, IC2E 2018, arXiv 1801.00540. Figure 5: API calls take 1 s for one node and"
        " 23 s for 24 at once, so 0.96 s for each more. Table I: a clone takes 7.10 s. Figure 6a: a boot reads about"
        " 170 MB of an image of 8 GB, 2.1 %."
    ),
    HIL: (
        "*HIL: Designing an Exokernel for the Data Center*, SoCC 2016, table 3: connecting a NIC to a network takes"
        " 4.336 s (median) on a real switch."
    ),
    IRONIC: (
        "Ironic 39.0.0 with fake drivers, without authentication and RPC, measured for this project on a machine with"
        " two cores. 50 and 200 deploys at once: 89–131 ms of CPU each, without the database server's; 9 a second."  # noqa: RUF001
        " One connection reads one node 275 times a second. A list of 1,000 nodes takes 112–170 ms of CPU."  # noqa: RUF001
        " Where there is a range, its better end stands in the tables."
    ),
}
