"""What projects hand to each other, and where their things are presented: one query, however much they have."""

import pytest
from tests.contract.store import values
from tests.contract.store.test_query_counts import counted

from malleable.domain.disks import Disk, DiskOffer, Target
from malleable.domain.ids import DiskOfferId, ImageGrantId, TargetId, new_id
from malleable.domain.images import Image, ImageGrant
from malleable.domain.nodes import NodeState
from malleable.domain.projects import Project
from malleable.domain.store import Page
from malleable.store import SqlStore

PAGE = Page(limit=100)


def offered(disk: Disk, to: Project) -> DiskOffer:
    return DiskOffer(id=DiskOfferId(new_id()), disk_id=disk.id, project_id=to.id, created_at=values.NOW)


def granted(image: Image, to: Project) -> ImageGrant:
    return ImageGrant(id=ImageGrantId(new_id()), image_id=image.id, project_id=to.id, created_at=values.NOW)


def test_both_sides_find_what_goes_between_them_and_nobody_else(store: SqlStore) -> None:
    giver, taker, third = (values.project() for _ in range(3))
    disk, image = values.disk(giver, values.image(), image_id=None), values.image(project_id=giver.id)
    with store.transaction() as tx:
        for project in (giver, taker, third):
            tx.projects.add(project)
        tx.disks.add(disk)
        tx.images.add(image)
        tx.disk_offers.add(offered(disk, taker))
        tx.image_grants.add(granted(image, taker))
    with store.reading() as tx:
        for rows in (tx.disk_offers, tx.image_grants):
            assert [len(rows.of_projects(PAGE, [one.id])) for one in (giver, taker, third)] == [1, 1, 0]
            assert len(rows.of_projects(PAGE, [giver.id, taker.id, third.id])) == 1
            assert rows.of_projects(PAGE, []) == ()


def test_targets_are_their_disks_owners_and_of_an_image_its_readers(store: SqlStore) -> None:
    owner, holder = values.project(), values.project()
    image, network = values.image(), values.network(project_id=owner.id)
    disk = values.disk(owner, image)
    nodes = [values.node(project_id=holder.id, state=NodeState.ALLOCATED) for _ in range(2)]
    of_disk = values.target(disk, nodes[0], network)
    of_image = values.target(disk, nodes[1], network, disk_id=None, image_id=image.id)
    with store.transaction() as tx:
        tx.projects.add(owner)
        tx.projects.add(holder)
        tx.networks.add(network)
        tx.images.add(image)
        tx.disks.add(disk)
        for node, target in zip(nodes, (of_disk, of_image), strict=True):
            tx.nodes.add(node)
            tx.targets.add(target)
    with store.reading() as tx:
        assert tx.targets.of_projects(PAGE, [owner.id]) == (of_disk,)
        assert tx.targets.of_projects(PAGE, [holder.id]) == (of_image,)
        assert tx.targets.of_projects(PAGE, [owner.id, holder.id], node_id=nodes[1].id) == (of_image,)
        assert tx.targets.of_projects(PAGE, [owner.id], node_id=nodes[1].id) == ()
        assert tx.targets.of_projects(Page(limit=1), [owner.id, holder.id]) == (min(of_disk, of_image, key=_id),)


def _id(target: Target) -> TargetId:
    return target.id


@pytest.mark.parametrize("count", [1, 40])
def test_a_page_costs_the_same_however_much_a_project_has(store: SqlStore, count: int) -> None:
    """Neither statements nor parameters grow: PostgreSQL takes 65535 of these."""
    giver, taker = values.project(), values.project()
    with store.transaction() as tx:
        tx.projects.add(giver)
        tx.projects.add(taker)
        for _ in range(count):
            disk = values.disk(giver, values.image(), image_id=None)
            tx.disks.add(disk)
            tx.disk_offers.add(offered(disk, taker))
    with store.reading() as tx, counted(store) as statements:
        first = tx.disk_offers.of_projects(Page(limit=25), [giver.id])
        rest = tx.disk_offers.of_projects(Page(limit=25, after=first[-1].id), [giver.id])
        assert len(first) + len(rest) == count
        assert len(statements) == 2
        assert tx.targets.of_projects(PAGE, [giver.id]) == ()
        assert len(statements) == 3
    ids = [one.id for one in (*first, *rest)]
    assert ids == sorted(ids)
    assert max(statement.count("?") + statement.count("$") + statement.count("%(") for statement in statements) <= 6
