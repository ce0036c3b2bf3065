"""Users: local accounts."""

from malleable.domain.errors import Conflict, Forbidden
from malleable.domain.ids import UserId, new_id
from malleable.domain.projects import Role, SiteRole, User
from malleable.domain.store import Page, Transaction
from malleable.services.authentication import Authentication
from malleable.services.authorization import require
from malleable.services.caller import Caller
from malleable.services.finding import find_named, listed, shown
from malleable.services.parts import Listed, Parts
from malleable.services.passwords import NO_PASSWORD, Passwords
from malleable.workflows.requests import record


class Users:
    """Local accounts; admins keep them, everybody may change their own password."""

    def __init__(self, parts: Parts, authentication: Authentication, passwords: Passwords) -> None:
        self._parts, self._authentication, self._passwords = parts, authentication, passwords

    def user_list(self, caller: Caller, page: Page) -> Listed[User]:
        """List all users."""
        require(caller, "user_list")
        with self._parts.store.reading() as tx:
            return listed(tx.users.list(page), page, {})

    def user_get(self, caller: Caller, ref: str) -> User:
        """Read one user. Errors: NotFound."""
        with self._parts.store.reading() as tx:
            require(caller, "user_get", what=f"user {shown(ref)}")
            return find_named(tx.users, ref, "user")

    def user_create(self, caller: Caller, *, name: str, password: str, site_role: SiteRole | None) -> User:
        """Add a user. Errors: Conflict when the name is taken; Invalid for a short password."""
        require(caller, "user_create")
        user = self.make(name=name, password=password, site_role=site_role)
        with self._parts.store.transaction() as tx:
            tx.users.add(user)
            self._record(tx, "user.created", caller, user)
        return user

    def make(self, *, name: str, password: str | None, site_role: SiteRole | None) -> User:
        """Make a user's value; hashing the password takes tens of milliseconds; None opens to none. Errors: Invalid."""
        return User(
            id=UserId(new_id()),
            name=name,
            password_hash=NO_PASSWORD if password is None else self._passwords.hash(password),
            site_role=None if site_role is None else Role(site_role),
            created_at=self._parts.now(),
        )

    def user_delete(self, caller: Caller, ref: str) -> None:
        """Remove a user with its tokens and memberships. Errors: NotFound; Conflict for the last admin."""
        with self._parts.store.transaction() as tx:
            require(caller, "user_delete", what=f"user {shown(ref)}")
            user = find_named(tx.users, ref, "user")
            if user.site_role is Role.ADMIN and tx.users.count(site_role=Role.ADMIN) == 1:
                raise Conflict(f"{user.name} is the last admin.", code="last-admin", fix="Make another admin first.")
            for token in tx.tokens.list(user_id=user.id):
                tx.tokens.remove(token.id)
            for membership in tx.memberships.list(user_id=user.id):
                tx.memberships.remove(membership.id)
            tx.users.remove(user.id)
            self._record(tx, "user.deleted", caller, user)
        self._authentication.forget_all()

    def user_set_password(self, caller: Caller, ref: str, *, password: str, old_password: str | None) -> None:
        """Set a password: one's own with the old one, anybody's as an admin. Ends the user's other sessions.

        Errors: NotFound; Forbidden when the old password is missing or wrong; Invalid; TooMany.
        """
        with self._parts.store.reading() as tx:
            user = tx.users.find(id=caller.user_id)
            is_own = user is not None and ref.lower() in (user.name, str(user.id))
            if not is_own:
                require(caller, "user_set_password", what=f"user {shown(ref)}")
                user = find_named(tx.users, ref, "user")
        if user is None:
            raise Forbidden("Your account is gone.")
        if is_own:
            self._check_own(caller, user, old_password)
        password_hash = self._passwords.hash(password)
        with self._parts.store.transaction() as tx:
            tx.users.change(user.id, password_hash=password_hash)
            for token in tx.tokens.list(user_id=user.id, revoked_at=None):
                if token.id != caller.token_id:
                    tx.tokens.change(token.id, revoked_at=self._parts.now())
            self._record(tx, "user.password-set", caller, user)
        self._authentication.forget_all()

    def _check_own(self, caller: Caller, user: User, old_password: str | None) -> None:
        require(caller, "user_set_own_password")
        if caller.token_project_id is not None:
            raise Forbidden("This token is narrowed to a project; it cannot change your account.", code="token-scope")
        if old_password is None or not self._passwords.check(user.name, user.password_hash, old_password):
            raise Forbidden("The old password is missing or wrong.", code="wrong-password", fix="Give old_password.")

    def _record(self, tx: Transaction, kind: str, caller: Caller, user: User) -> None:
        data = {"user_id": str(user.id), "name": user.name, "site_role": user.site_role}
        record(tx, self._parts.now(), kind, actor_id=caller.user_id, data=data)
