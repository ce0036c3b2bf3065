"""What a one-node Ceph is asked to be, and where its files are."""

import json
import re
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address
from pathlib import Path

from malleable.domain.errors import Invalid

_POOL = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)
#: the daemons' sockets lie in the directory, and a socket's name has 107 bytes
DIRECTORY_MAX_CHARS = 80


def want_pool_name(name: str) -> None:
    """Refuse a pool's name that is awkward somewhere. Errors: Invalid."""
    if not _POOL.fullmatch(name):
        raise Invalid(
            f"The pool {name!a} has no usable name.",
            fix="Use up to 32 lower-case letters, digits, '_' and '-', beginning with a letter.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CephSpec:
    """A cluster to build. Everything of it lies in ``directory``, which must be new or an earlier one's."""

    directory: Path
    address: str = "127.0.0.1"  #: the daemons listen here; who cannot reach it cannot use the cluster
    size_gib: int = 40  #: of the OSD's sparse file
    pool: str = "malleable"

    def __post_init__(self) -> None:
        """Refuse what Ceph would choke on later. Errors: Invalid."""
        if not self.directory.is_absolute() or len(str(self.directory)) > DIRECTORY_MAX_CHARS:
            raise Invalid(
                f"The directory {self.directory} cannot hold a Ceph.",
                fix=f"Name an absolute path of at most {DIRECTORY_MAX_CHARS} characters.",
            )
        want_pool_name(self.pool)
        try:
            IPv4Address(self.address)
        except ValueError as e:
            raise Invalid(f"{self.address!a} is not an IPv4 address.") from e


@dataclass(frozen=True, slots=True, kw_only=True)
class CephLayout:
    """The files of one cluster."""

    spec: CephSpec

    #: the cephx user of the least rights that a server needs: for the pool, and for those of projects that are added
    USER = "malleable"
    #: the one of target daemons, for the pool alone
    PORTAL_USER = "malleable-portal"

    @property
    def conf(self) -> Path:
        """The user's configuration: what a disk pool is given."""
        return self.spec.directory / "client.conf"

    def keyring(self, user: str) -> Path:
        """Name the file of a user's key; "$name", as Ceph writes it: of whoever looks for its own."""
        return self.spec.directory / f"{user if user.startswith('$') else f'client.{user}'}.keyring"

    @property
    def cluster_conf(self) -> Path:
        """The configuration of the daemons and of ``client.admin``."""
        return self.spec.directory / "ceph.conf"

    @property
    def admin_keyring(self) -> Path:
        """The keys of everybody, for ``client.admin`` and the monitor's birth."""
        return self.spec.directory / "admin.keyring"

    @property
    def spec_file(self) -> Path:
        """What was asked for."""
        return self.spec.directory / "spec.json"

    @property
    def made(self) -> Path:
        """The mark of a cluster that was made to the end."""
        return self.spec.directory / "made"

    def data(self, daemon: str) -> Path:
        """Name a daemon's data directory."""
        return self.spec.directory / daemon

    def pid_file(self, daemon: str) -> Path:
        """Name a daemon's pid file."""
        return self.spec.directory / f"{daemon}.pid.json"

    def log(self, daemon: str) -> Path:
        """Name the file for what a daemon prints."""
        return self.spec.directory / f"{daemon}.log"

    def write_spec(self) -> None:
        """Keep what was asked for."""
        fields = {**asdict(self.spec), "directory": str(self.spec.directory)}
        self.spec_file.write_text(json.dumps(fields, indent=1))


def find(directory: Path) -> CephLayout | None:
    """Find the cluster of a directory; None if there is none."""
    try:
        fields = json.loads((directory / "spec.json").read_text())
        return CephLayout(spec=CephSpec(**{**fields, "directory": Path(fields["directory"])}))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError) as e:
        raise Invalid(f"{directory / 'spec.json'} is damaged.", fix=f"Remove {directory}.") from e
