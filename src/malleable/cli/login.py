"""m2 login, logout, whoami."""

import os
from dataclasses import replace
from typing import Annotated

import typer

from malleable.cli.command import register
from malleable.cli.formats import age, parse_lifetime
from malleable.cli.node_access import rights
from malleable.cli.options import PasswordFile, read_password
from malleable.cli.output import show_one
from malleable.cli.session import Session
from malleable.cli.settings import Login, Logins, load_logins, save_logins
from malleable.domain.errors import MalleableError
from malleable.domain.secrets import Secret

_PANEL = "You"


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    register(app, {"login": login, "logout": logout, "whoami": whoami}, panel=_PANEL)


def login(
    session: Session,
    user: Annotated[str | None, typer.Argument(metavar="USER", help="Asked for when left out.")] = None,
    password_file: PasswordFile = None,
    ttl: Annotated[str, typer.Option(metavar="TIME", help="How long the login lasts, at most 30d.")] = "12h",
    read_only: Annotated[bool, typer.Option("--read-only", help="A login that can change nothing.")] = False,
) -> None:
    """Log in and keep the token, and the project if one is given, for the commands that follow.

    The token is kept in a file that only you can read, for this server only.
    """
    from malleable.wire.users import LoginRequest

    name = user or str(typer.prompt("User", err=True))
    settings = session.settings
    _warn_of_plain_http(session, settings.url)
    password = read_password(password_file, f"Password of {name}")
    lasting = parse_lifetime(ttl)
    request = LoginRequest(username=name, password=password, name="m2 login", ttl_s=lasting, is_read_only=read_only)
    with session.client(replace(settings, token=None)) as m2:
        issued = m2.login(request)
    with session.client(replace(settings, token=Secret(issued.token))) as m2:
        project = m2.project_get(settings.project).name if settings.project else ""
        who = m2.whoami()
    kept = Login(token=issued.token, user=name, project=project, cacert=settings.cacert or "")
    path = session.surroundings.config()
    save_logins(path, Logins(current=settings.url, servers={**load_logins(path).servers, settings.url: kept}))
    if session.is_json:
        session.write_json(who.model_dump(mode="json"))
        return
    session.say(f"Logged in to {settings.url} as {name} for {ttl}.")
    if os.environ.get("M2_TOKEN"):
        session.hint("M2_TOKEN is set and goes before this login: unset it to be the one who logged in.")
    projects = [membership.project for membership in who.memberships]
    if len(projects) > 1 and not project:
        session.hint(f"You belong to {', '.join(projects)}: name one with --project, or keep one with `m2 login -p`.")


def logout(session: Session) -> None:
    """Revoke the token of this login and forget it; a token in M2_TOKEN is left alone."""
    path, url = session.surroundings.config(), session.settings.url
    logins = load_logins(path)
    if url not in logins.servers:
        session.say(f"Not logged in to {url}.")
        return
    kept = Secret(logins.servers[url].token)
    try:
        with session.client(replace(session.settings, token=kept)) as m2:
            m2.token_revoke(m2.whoami().token.id)
    except MalleableError as e:
        session.hint(f"The server could not be told ({e.message}); the token dies at its end.")
    rest = {server: login for server, login in logins.servers.items() if server != url}
    save_logins(path, Logins(current=next(iter(rest), ""), servers=rest))
    session.say(f"Logged out of {url}.")
    if os.environ.get("M2_TOKEN"):
        session.hint("M2_TOKEN is set and left as it was: unset it too to be nobody here.")


def whoami(session: Session) -> None:
    """Show who you are to the server, what you may do and until when."""
    who = session.m2.whoami()
    scope = [f"project {who.token.project}"] if who.token.project else []
    scope += [rights(who.token)] if who.token.verbs or who.token.is_read_only else []
    show_one(
        session,
        who,
        {
            "user": who.user.name,
            "site role": who.site_role or "",
            "projects": ", ".join(f"{m.project} ({m.role})" for m in who.memberships),
            "project meant": session.project or "",
            "server": session.settings.url,
            "token": who.token.name + (f" ({', '.join(scope)})" if scope else ""),
            "ends": age(who.token.expires_at, session.now()),
        },
    )


def _warn_of_plain_http(session: Session, url: str) -> None:
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
        session.err.print(f"warning: {url} is not encrypted; the password can be read on its way.", style="yellow")
