"""m2 user: local accounts."""

from typing import TYPE_CHECKING, Annotated

import typer

from malleable.cli.command import group, register
from malleable.cli.formats import age
from malleable.cli.options import NewName, PasswordFile, UserArgument, read_password
from malleable.cli.output import Column, done, show_list
from malleable.cli.session import Session
from malleable.domain.projects import SiteRole

if TYPE_CHECKING:
    from malleable.wire.users import UserView


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    noun = group(app, "user", "Local accounts.")
    register(noun, {"list": user_list, "create": user_create, "password": user_password, "delete": user_delete})


def user_list(session: Session) -> None:
    """List all accounts."""
    now = session.now()
    columns: list[Column[UserView]] = [
        Column(title="name", cell=lambda user: user.name),
        Column(title="site role", cell=lambda user: user.site_role or "-"),
        Column(title="age", cell=lambda user: age(user.created_at, now)),
    ]
    show_list(session, session.m2.user_list(), columns, nothing="No users.")


def user_create(
    session: Session,
    name: NewName,
    site_role: Annotated[
        SiteRole | None, typer.Option(help="For the site; without one, for people of projects.")
    ] = None,
    password_file: PasswordFile = None,
) -> None:
    """Add an account; give it projects with `m2 project member set`."""
    from malleable.wire.users import UserRequest

    password = read_password(password_file, f"Password for {name}", is_new=True)
    user = session.m2.user_create(UserRequest(name=name, password=password, site_role=site_role))
    done(session, user, f"User {user.name} can log in.")


def user_password(
    session: Session,
    user: UserArgument,
    password_file: PasswordFile = None,
    old_password_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Where the present password is, when it is your own.")
    ] = None,
) -> None:
    """Set a password: your own (the present one is asked for), or as an admin anybody's."""
    from malleable.wire.users import PasswordRequest

    old = None
    if session.m2.whoami().user.name == user:
        old = read_password(old_password_file, "Present password")
    new = read_password(password_file, f"New password of {user}", is_new=True)
    session.m2.user_set_password(user, PasswordRequest(password=new, old_password=old))
    done(session, None, f"The password of {user} is changed.")


def user_delete(session: Session, user: UserArgument) -> None:
    """Remove an account and its tokens."""
    session.m2.user_delete(user)
    done(session, None, f"User {user} is removed.")
