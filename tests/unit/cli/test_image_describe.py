"""m2 image describe."""

from tests.unit.cli.desk import Desk
from tests.unit.cli.test_image_import import image


def test_only_what_is_named_is_sent(desk: Desk) -> None:
    desk.answers["PUT /v1/images/tiny/description"] = image("sealed")
    words = ("image", "describe", "tiny", "--os", "Debian 12", "--firmware", "bios", "--firmware", "uefi")
    assert desk.m2(*words).code == 0
    assert desk.sent("PUT /v1/images/tiny/description") == {"os": "Debian 12", "firmwares": ["bios", "uefi"]}


def test_a_seed_on_a_disk_is_switched_and_a_golden_image_changed_for_all(desk: Desk) -> None:
    desk.answers["PUT /v1/images/tiny/description"] = image("sealed")
    assert desk.m2("image", "describe", "tiny", "--no-seed", "--in-use").code == 0
    assert desk.sent("PUT /v1/images/tiny/description") == {"wants_seed_disk": False, "in_use": True}
    assert desk.m2("image", "describe", "tiny", "--in-use").code == 2


def test_nothing_is_no_description(desk: Desk) -> None:
    assert desk.m2("image", "describe", "tiny").code == 2
    assert desk.m2("image", "describe", "tiny", "--architecture", "a b").code == 2
    assert desk.requests == []
