"""The account service of our BMCs, which sushy-tools 2.2 lacks: one account each, which may change its own password.

Source: Redfish AccountService 1.10 and ManagerAccount 1.9 schemas, DSP0268.
"""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import flask
from sushy_tools import error

from malleable.domain.secrets import Secret
from malleable.sim.rack import bmcs, description
from malleable.sim.rack.bmc.driver import NODE_KEY, RackSystems
from malleable.sim.rack.layout import Layout

SERVICE = "/redfish/v1/AccountService"
MIN_CHARS, MAX_CHARS = 8, 32
_ROOT = "root_resource"  #: sushy-tools' endpoint of /redfish/v1/


class Passwords:
    """The passwords of all BMCs; a change is kept in the room's own files, so that its description stays true."""

    def __init__(self, layout: Layout) -> None:
        """Read them."""
        self._layout = layout
        self._lock = threading.Lock()
        self._known = {node.name: node.password for node in description.load(layout.description).nodes}

    def of(self, node: str) -> Secret:
        """Return the password of a node's BMC."""
        return self._known[node]

    def change(self, node: str, password: Secret) -> None:
        """Give a node's BMC another password, for the life of the room."""
        with self._lock:
            saved = bmcs.accounts(self._layout.accounts, list(self._known))
            bmcs.save_accounts(self._layout.accounts, {**saved, node: replace(saved[node], password=password)})
            room = description.load(self._layout.description)
            nodes = tuple(replace(one, password=password) if one.name == node else one for one in room.nodes)
            description.save(replace(room, nodes=nodes), self._layout.description)
            self._known[node] = password


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountService:
    """The routes, to be installed into sushy-tools' application once."""

    systems: RackSystems
    passwords: Passwords

    def install(self, app: flask.Flask) -> None:
        """Add everything to ``app``."""
        app.after_request(_complete_root)
        app.add_url_rule(SERVICE, "account_service", _service)
        app.add_url_rule(f"{SERVICE}/Accounts", "accounts", _accounts)
        app.add_url_rule(f"{SERVICE}/Accounts/1", "account", self._account, methods=["GET", "PATCH"])

    def _account(self) -> flask.Response:
        node = self.systems.current(flask.request.environ[NODE_KEY]).spec.name
        if flask.request.method == "PATCH":
            self.passwords.change(node, _new_password(flask.request.get_json(silent=True)))
            return flask.Response(status=204)
        shown = {"Id": "1", "Name": "User Account", "Enabled": True, "RoleId": "Administrator", "Password": None}
        return flask.jsonify(
            {
                "@odata.id": f"{SERVICE}/Accounts/1",
                "@odata.type": "#ManagerAccount.v1_9_0.ManagerAccount",
                **shown,
                "UserName": bmcs.USERNAME,
            }
        )


def _new_password(body: Any) -> Secret:
    """Read a change. Errors: BadRequest; it never repeats the password."""
    password = body.get("Password") if isinstance(body, dict) and set(body) == {"Password"} else None
    if not isinstance(password, str) or not MIN_CHARS <= len(password) <= MAX_CHARS or not password.isascii():
        raise error.BadRequest(f"Only Password can be set; it has to have {MIN_CHARS} to {MAX_CHARS} ASCII characters")
    return Secret(password)


def _service() -> Mapping[str, Any]:
    kind = "#AccountService.v1_10_0.AccountService"
    limits = {"MinPasswordLength": MIN_CHARS, "MaxPasswordLength": MAX_CHARS}
    accounts = {"@odata.id": f"{SERVICE}/Accounts"}
    return {"@odata.id": SERVICE, "@odata.type": kind, "Name": "Account Service", **limits, "Accounts": accounts}


def _accounts() -> Mapping[str, Any]:
    members = [{"@odata.id": f"{SERVICE}/Accounts/1"}]
    kind = "#ManagerAccountCollection.ManagerAccountCollection"
    path = f"{SERVICE}/Accounts"
    return {"@odata.id": path, "@odata.type": kind, "Name": "Accounts", "Members": members, "Members@odata.count": 1}


def _complete_root(response: flask.Response) -> flask.Response:
    """Tell of the service where clients look for it."""
    if flask.request.endpoint != _ROOT or response.status_code != 200:
        return response
    root = json.loads(response.get_data())
    response.set_data(json.dumps({**root, "AccountService": {"@odata.id": SERVICE}}))
    return response
