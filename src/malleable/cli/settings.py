"""Which server, which token, which project: options, then the environment, then what ``m2 login`` kept."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from malleable.domain.errors import Invalid
from malleable.domain.secrets import Secret

DEFAULT_URL = "http://127.0.0.1:8642"


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What is kept of a login at one server."""

    token: str = field(repr=False)
    user: str
    project: str = ""  #: the one meant when none is named; "": the only one there is
    cacert: str = ""  #: path of the certificate of the server's authority


@dataclass(frozen=True, slots=True, kw_only=True)
class Logins:
    """All logins, by server: a token never travels to a server that did not issue it."""

    current: str = ""  #: URL of the server last logged in to
    servers: dict[str, Login] = field(default_factory=dict)


def config_path() -> Path:
    """Return where logins are kept: ~/.config/malleable/config.json, or as the platform has it."""
    import platformdirs

    return Path(platformdirs.user_config_dir("malleable")) / "config.json"


def load_logins(path: Path) -> Logins:
    """Read the kept logins; none when there is no file. Errors: Invalid when the file is not ours."""
    try:
        raw = json.loads(path.read_text())
        servers = {url: Login(**login) for url, login in raw["servers"].items()}
        return Logins(current=str(raw["current"]), servers=servers)
    except FileNotFoundError:
        return Logins()
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise Invalid(f"{path} is damaged.", fix="Remove it and log in again with `m2 login`.") from e


def save_logins(path: Path, logins: Logins) -> None:
    """Keep the logins in a file that nobody else can read; at no time is it half written or readable by others."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(logins), file, indent=2)
        file.write("\n")
    fresh.replace(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What the command line and the environment say; None or "" leaves it to the kept login."""

    url: str | None = None
    project: str | None = None
    cacert: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one command runs with."""

    url: str
    token: Secret | None
    project: str | None
    cacert: str | None
    user: str


def resolve(path: Path, given: Given) -> Settings:
    """Settle one command's settings from what is given, M2_TOKEN and the kept logins."""
    logins = load_logins(path)
    url = (given.url or logins.current or DEFAULT_URL).rstrip("/")
    kept = logins.servers.get(url)
    token = os.environ.get("M2_TOKEN") or (kept.token if kept else "")
    return Settings(
        url=url,
        token=Secret(token) if token else None,
        project=given.project or (kept.project if kept else "") or None,
        cacert=given.cacert or (kept.cacert if kept else "") or None,
        user=kept.user if kept else "",
    )
