"""Projects and who belongs to them."""

from malleable.domain.errors import Conflict
from malleable.domain.ids import MembershipId, ProjectId, new_id
from malleable.domain.operations import ACTIVE_STATES
from malleable.domain.projects import Membership, Project, ProjectRole, Role
from malleable.domain.store import Page, Transaction
from malleable.services.authentication import Authentication
from malleable.services.authorization import not_found, require
from malleable.services.caller import Caller
from malleable.services.finding import find_named, find_project, listed, names_of
from malleable.services.parts import Listed, Parts
from malleable.workflows.requests import record


class Projects:
    """Tenants; admins keep them."""

    def __init__(self, parts: Parts, authentication: Authentication) -> None:
        self._parts, self._authentication = parts, authentication

    def project_list(self, caller: Caller, page: Page) -> Listed[Project]:
        """List one's own projects; operators and admins: all."""
        require(caller, "project_list")
        with self._parts.store.reading() as tx:
            wanted: dict[str, object] = {} if caller.is_operator else {"id": list(caller.memberships)}
            return listed(tx.projects.list(page, **wanted), page, {})

    def project_get(self, caller: Caller, ref: str) -> Project:
        """Read one project. Errors: NotFound."""
        with self._parts.store.reading() as tx:
            return find_project(tx, caller, ref)

    def project_create(self, caller: Caller, name: str, *, pool: str = "") -> Project:
        """Add a project, for ever with its disks and images in a pool of its own if one is named.

        Errors: Conflict when the name is taken; the driver's when that pool cannot be had.
        """
        require(caller, "project_create")
        if pool:
            self._want_pool(pool)
        now, quota = self._parts.now(), self._parts.new_quota
        project = Project(id=ProjectId(new_id()), name=name, quota=quota, pool=pool, created_at=now)
        with self._parts.store.transaction() as tx:
            tx.projects.add(project)
            data = {"name": name}
            record(tx, now, "project.created", project_id=project.id, actor_id=caller.user_id, data=data)
        return project

    def _want_pool(self, name: str) -> None:
        pool = self._parts.drivers.disks.within(name)
        pool.check()
        capacity = pool.capacity()
        if capacity.free_bytes < capacity.reserve_bytes:
            free_gib, reserve_gib = (size / (1 << 30) for size in (capacity.free_bytes, capacity.reserve_bytes))
            raise Conflict(
                f"The pool {name} has {free_gib:.1f} GiB free: less than the reserve of {reserve_gib:.1f} GiB.",
                code="pool-full",
                fix="Nothing could be made in it. Raise its quota, or lower `reserve_gib` of the pool's settings.",
            )

    def project_delete(self, caller: Caller, ref: str) -> None:
        """Remove an empty project, with its memberships and narrowed tokens. Errors: NotFound, Conflict."""
        with self._parts.store.transaction() as tx:
            project = find_project(tx, caller, ref, "project_delete")
            left = _left(tx, project.id)
            if left:
                words = ", ".join(f"{count} {noun}" for noun, count in left.items())
                raise Conflict(
                    f"Project {project.name} still has {words}.",
                    code="project-not-empty",
                    fix="Release its nodes and delete its disks, networks and images first.",
                    details=dict(left),
                )
            for membership in tx.memberships.list(project_id=project.id):
                tx.memberships.remove(membership.id)
            for token in tx.tokens.list(project_id=project.id):
                tx.tokens.remove(token.id)
            tx.projects.remove(project.id)
            data = {"name": project.name}
            now = self._parts.now()
            record(tx, now, "project.deleted", project_id=project.id, actor_id=caller.user_id, data=data)
        self._authentication.forget_all()

    def member_list(self, caller: Caller, ref: str, page: Page) -> Listed[Membership]:
        """List who belongs to a project. Errors: NotFound."""
        with self._parts.store.reading() as tx:
            project = find_project(tx, caller, ref)
            require(caller, "member_list", project_id=project.id)
            members = tx.memberships.list(page, project_id=project.id)
            return listed(members, page, names_of(tx.users, (m.user_id for m in members)))

    def member_set(self, caller: Caller, ref: str, user_ref: str, role: ProjectRole) -> tuple[Membership, str]:
        """Give a user a role in a project, or change it; return it with the user's name. Errors: NotFound, Conflict."""
        given = Role(role)
        with self._parts.store.transaction() as tx:
            project = find_project(tx, caller, ref)
            require(caller, "member_set", project_id=project.id)
            user = find_named(tx.users, user_ref, "user")
            if user.site_role is Role.GATEWAY:
                raise Conflict("A gateway cannot belong to a project.", code="gateway-member")
            member = tx.memberships.find(user_id=user.id, project_id=project.id)
            if member is None:
                member = Membership(id=MembershipId(new_id()), user_id=user.id, project_id=project.id, role=given)
                tx.memberships.add(member)
            else:
                tx.memberships.change(member.id, role=given)
                member = tx.memberships.get(member.id)
            data = {"user": user.name, "role": role}
            now = self._parts.now()
            record(tx, now, "member.set", project_id=project.id, actor_id=caller.user_id, data=data)
        self._authentication.forget_all()
        return member, user.name

    def member_remove(self, caller: Caller, ref: str, user_ref: str) -> None:
        """Take a user out of a project. Errors: NotFound."""
        with self._parts.store.transaction() as tx:
            project = find_project(tx, caller, ref)
            require(caller, "member_remove", project_id=project.id)
            user = find_named(tx.users, user_ref, "user")
            member = tx.memberships.find(user_id=user.id, project_id=project.id)
            if member is None:
                raise not_found(f"member {user.name} of project {project.name}")
            tx.memberships.remove(member.id)
            data = {"user": user.name}
            now = self._parts.now()
            record(tx, now, "member.removed", project_id=project.id, actor_id=caller.user_id, data=data)
        self._authentication.forget_all()


def _left(tx: Transaction, project_id: ProjectId) -> dict[str, int]:
    """Count what a project still has."""
    counts = {
        "nodes": tx.nodes.count(project_id=project_id),
        "networks": tx.networks.count(project_id=project_id),
        "disks": tx.disks.count(project_id=project_id),
        "images": tx.images.count(project_id=project_id),
        "operations": tx.operations.count(project_id=project_id, state=list(ACTIVE_STATES)),
    }
    return {noun: count for noun, count in counts.items() if count}
