"""Sessions with BMCs over sushy: one for each BMC and user, each request sent once, each failure told in our words."""

import re
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import sushy
from sushy import auth as sushy_auth
from sushy import connector as sushy_connector
from sushy import exceptions

from malleable.domain.errors import Busy, DriverError, Malformed, Refused, Unreachable
from malleable.domain.ports import Bmc
from malleable.domain.secrets import Secret

ROOT = "/redfish/v1/"
DETAIL_MAX_CHARS = 300
LOGOUTS_AT_ONCE = 32
BUSY_STATUSES = (429, 503)
_NOT_FOUND, _NOT_IMPLEMENTED = 404, 501
#: The reason inside the libraries' text: OpenSSL's words on a certificate, or its name for any other trouble.
_TLS_REASON = re.compile(r"certificate verify failed: (?P<words>[^()\n]{1,200})|\[SSL: (?P<name>[A-Z0-9_]{1,60})\]")
_SERVER_FAULTS = range(500, 600)


class FreshAdapter(requests.adapters.HTTPAdapter):
    """Opens a new connection for every request.

    sushy asks BMCs to close after each answer, because some choke on lasting connections; one that closes without
    announcing it would break the next request, which a repeat would hide and we do not repeat.
    """

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        self.poolmanager.clear()
        return super().send(*args, **kwargs)


class OnceConnector(sushy_connector.Connector):  # type: ignore[misc]
    """Sends every request once, to the BMC itself and nowhere else.

    sushy 5.14 sends any request, a Reset POST too, up to three times when the connection breaks, and again when a BMC
    answers that it is not ready; ``server_side_retries`` of 1 ends the first, 0 retries left the second.
    Redirects and links to other hosts would carry the credentials there, and proxies of the environment as well.
    """

    def __init__(self, url: str, *, verify: bool | str, timeout_s: float) -> None:
        super().__init__(url, verify=verify, server_side_retries=1, default_request_timeout=timeout_s)
        self._session.trust_env = False
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, FreshAdapter())
        self._origin = urlsplit(url)[:2]
        self.verify = verify

    def prepared(self, request: requests.Request) -> requests.PreparedRequest:
        """Give a request the session's credentials; it is not sent."""
        prepared: requests.PreparedRequest = self._session.prepare_request(request)
        return prepared

    def _op(self, method: str, path: str = "", **kwargs: Any) -> Any:
        if urlsplit(urljoin(self._url, path))[:2] != self._origin:
            raise Malformed(f"The BMC at {self._url} points to another host: {path[:DETAIL_MAX_CHARS]!a}.")
        kwargs |= {"server_side_retries_left": 0, "allow_redirects": False}
        response = super()._op(method, path, **kwargs)
        if response.is_redirect:
            raise Refused(
                f"The BMC at {self._url} redirects to {response.headers['Location'][:DETAIL_MAX_CHARS]!a}.",
                fix="Enrol it by the address where it answers.",
                code="bmc-redirects",
            )
        return response


class SessionElseBasic(sushy_auth.SessionOrBasicAuth):  # type: ignore[misc]
    """Logs in to a session; sends the password with every request only to BMCs that have no sessions.

    sushy tries a refused password a second time, which locks accounts twice as fast, and logs out in ``__del__``,
    which may wait for a dead BMC in any thread.
    """

    def _do_authenticate(self) -> None:
        if not (self._root_resource.json.get("Links") or {}).get("Sessions"):
            self._fallback_to_basic_authentication()
            return
        try:
            sushy_auth.SessionAuth._do_authenticate(self)
        except (exceptions.AccessError, exceptions.ConnectionError):
            raise
        except exceptions.SushyError:
            self._fallback_to_basic_authentication()

    def close(self) -> None:
        """Do nothing: called by the garbage collector."""

    def log_out(self) -> None:
        """End the session, if the BMC still answers."""
        self._connector.set_auth(None)  # else a session that has ended is renewed, to be ended
        try:
            super().close()
        except (exceptions.SushyError, DriverError):
            return  # the BMC ends it by itself, after its own time-out


@dataclass(slots=True, kw_only=True)
class BmcSession:
    """An open session."""

    root: sushy.Sushy
    connector: OnceConnector
    auth: SessionElseBasic
    password: Secret


@dataclass(slots=True, kw_only=True)
class _Slot:
    lock: threading.Lock = field(default_factory=threading.Lock)
    session: BmcSession | None = None


class BmcSessions:
    """The open sessions, at most ``limit``. Safe to use from many threads; one call at a time for each BMC.

    Sessions are found by address and user, and the password is compared: hashing it to make a key costs Ironic
    0.2 s of CPU for every call.
    """

    def __init__(self, *, verify: bool | str, timeout_s: float, limit: int) -> None:
        self._verify = verify
        self._timeout_s = timeout_s
        self._limit = limit
        self._lock = threading.Lock()
        self._slots: OrderedDict[tuple[str, str], _Slot] = OrderedDict()

    @contextmanager
    def open(self, bmc: Bmc) -> Iterator[BmcSession]:
        """Hold the BMC's session for some requests.

        Errors: the four of drivers; Busy also when another call holds the session for longer than the time-out.
        """
        check_address(bmc.address)
        slot = self._slot(bmc)
        if not slot.lock.acquire(timeout=self._timeout_s):
            raise Busy(f"BMC {bmc.address} is still busy with another call.")
        is_old = slot.session is not None and slot.session.password in (bmc.password, bmc.next_password)
        try:
            with told(bmc):
                if not is_old or slot.session is None:
                    before, slot.session = slot.session, self._log_in_either(bmc)
                    if before is not None:
                        before.auth.log_out()  # BMCs have room for a few
                yield slot.session
        except Refused as e:
            if e.code == "bmc-credentials":
                slot.session = None
                if is_old and bmc.next_password is not None:
                    # It was opened with one password, and the other is the one by now.
                    raise Busy(f"BMC {bmc.address} ended the session; the next call logs in anew.") from e
            raise
        finally:
            slot.lock.release()

    def forget(self, bmc: Bmc) -> None:
        """Log out of one BMC, once no other call needs it, so that the next one logs in anew. Does not fail."""
        _log_out(self._slot(bmc), wait_s=self._timeout_s)

    def close(self, within_s: float) -> None:
        """Log out everywhere, from all BMCs at once; those that do not answer in time are left to their own."""
        with self._lock:
            slots = deque(self._slots.values())
            self._slots.clear()
        until_s = time.monotonic() + within_s
        threads = [
            threading.Thread(target=_log_out_all, args=(slots,), name="log-out", daemon=True)
            for _ in range(min(LOGOUTS_AT_ONCE, len(slots)))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(until_s - time.monotonic(), 0.0))

    def _slot(self, bmc: Bmc) -> _Slot:
        dropped: list[_Slot] = []
        with self._lock:
            slot = self._slots.setdefault((bmc.address, bmc.username), _Slot())
            self._slots.move_to_end((bmc.address, bmc.username))
            while len(self._slots) > self._limit:
                dropped.append(self._slots.popitem(last=False)[1])
        for old in dropped:
            _log_out(old)
        return slot

    def _log_in_either(self, bmc: Bmc) -> BmcSession:
        """Log in with whichever password the BMC takes; with both tried it costs the account one failed login."""
        if bmc.next_password is None:
            return self._log_in(bmc)
        try:
            session = self._log_in(bmc)
            session.root.get_system_collection()  # a BMC without sessions checks no password before it is asked
            return session
        except exceptions.AccessError:
            return self._log_in(replace(bmc, password=bmc.next_password))

    def _log_in(self, bmc: Bmc) -> BmcSession:
        connector = OnceConnector(bmc.address, verify=self._verify, timeout_s=self._timeout_s)
        auth = SessionElseBasic(username=bmc.username, password=bmc.password.reveal())
        root = sushy.Sushy(bmc.address, root_prefix=ROOT, auth=auth, connector=connector)
        return BmcSession(root=root, connector=connector, auth=auth, password=bmc.password)


def _log_out_all(slots: deque[_Slot]) -> None:
    """Log out of what is left; other threads take from it too."""
    while True:
        try:
            slot = slots.popleft()
        except IndexError:
            return
        _log_out(slot)


def _log_out(slot: _Slot, *, wait_s: float = 0.0) -> None:
    """End a slot's session; one that stays in use is left to the BMC's own time-out."""
    if slot.lock.acquire(timeout=wait_s):
        try:
            if slot.session is not None:
                slot.session.auth.log_out()
                slot.session = None
        finally:
            slot.lock.release()


def check_address(address: str) -> None:
    """Accept only a plain http or https URL. Errors: Refused with code "bmc-address"; it never repeats the address."""
    fix = "Write https://host or https://host:port; the user and password go into their own fields."
    try:
        url = urlsplit(address)
        is_plain = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError as e:
        raise Refused("The BMC's address is not a URL.", fix=fix, code="bmc-address") from e
    if not is_plain or "@" in url.netloc or url.path not in ("", "/") or url.query or url.fragment:
        raise Refused("The BMC's address is not a plain http or https URL.", fix=fix, code="bmc-address")


@contextmanager
def told(bmc: Bmc) -> Iterator[None]:
    """Tell what sushy raises as one of the four driver errors."""
    try:
        yield
    except exceptions.ConnectionError as e:
        raise _no_answer(bmc, e) from e
    except exceptions.HTTPError as e:
        raise _bad_status(bmc, e) from e
    except (exceptions.MissingActionError, exceptions.InvalidParameterValueError) as e:
        raise Refused(f"BMC {bmc.address} cannot do this: {_cut(e)}") from e
    except (exceptions.SushyError, ValueError, LookupError, TypeError, AttributeError) as e:
        # sushy walks through a BMC's JSON without looking: a list where an object belongs is an AttributeError.
        raise Malformed(f"BMC {bmc.address} broke the Redfish protocol: {_cut(e)}") from e


def _no_answer(bmc: Bmc, e: exceptions.ConnectionError) -> DriverError:
    if isinstance(e.__context__, requests.exceptions.SSLError):
        return Refused(
            f"BMC {bmc.address} shows a TLS certificate that is not trusted{_why_untrusted(e)}.",
            fix="Give the BMC a certificate that this host trusts, or set M2D_REDFISH_VERIFY_TLS=false for the server.",
            code="bmc-certificate",
        )
    return Unreachable(f"BMC {bmc.address} did not answer.", fix="Check its address, cable and power.")


def _why_untrusted(e: exceptions.ConnectionError) -> str:
    found = _TLS_REASON.search(str(e).replace("[SSL: CERTIFICATE_VERIFY_FAILED] ", ""))
    return f": {(found['words'] or found['name']).strip()}" if found else ""


def _bad_status(bmc: Bmc, e: exceptions.HTTPError) -> DriverError:
    said = f"BMC {bmc.address} answered HTTP {e.status_code}: {_cut(e.detail or e.code)}"
    if isinstance(e, exceptions.AccessError):
        return Refused(
            f"BMC {bmc.address} does not accept the user and password (HTTP {e.status_code}).",
            fix="Correct them with `m2 node credentials NODE`, or give the user the Operator role.",
            code="bmc-credentials",
        )
    if e.status_code in BUSY_STATUSES:
        return Busy(said)
    if e.status_code in _SERVER_FAULTS and e.status_code != _NOT_IMPLEMENTED:
        return Unreachable(said)  # whether it acted is not known
    if e.status_code == _NOT_FOUND:
        return Refused(said, fix="Check that this address is a BMC's, and that its Redfish service is switched on.")
    return Refused(said)


def _cut(text: object) -> str:
    return str(text)[:DETAIL_MAX_CHARS]
