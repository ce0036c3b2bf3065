"""What tgtd tells of sessions: who called itself something, and who did not (tgtadm --op show, tgt 1.0.85)."""

import pytest

from malleable.drivers.target.tgt_control import parse_targets

SHOWN = """Target 7: iqn.2026-11.org.malleable:aa
    System information:
        Driver: iscsi
        State: ready
    I_T nexus information:
        I_T nexus: 3
            Initiator: iqn.2026-11.org.malleable:node:1 alias: {alias}
            Connection: 0
                IP Address: 10.0.0.10
    LUN information:
        LUN: 0
            Type: controller
    Account information:
    ACL information:
        10.0.0.10
"""


@pytest.mark.parametrize(
    ("told", "alias"),
    [
        ("none", ""),  # iPXE 2019, measured
        ("(none)", "(none)"),  # iscsistart in an initrd without a host name, measured
        ("n1", "n1"),
        ("a alias: none", ""),
        ("", ""),
    ],
)
def test_an_operating_system_names_itself_and_firmware_does_not(told: str, alias: str) -> None:
    (target,) = parse_targets(SHOWN.format(alias=told))
    (session,) = target.nexuses
    assert (session.number, session.address, session.alias) == (3, "10.0.0.10", alias)
