"""The first-boot script: what runs a project's own once and reports its end, and the hook that tells of it."""

import hashlib
import hmac
import secrets

from malleable.domain.errors import Invalid
from malleable.domain.secrets import Secret

#: Of a first-boot script: several times what the largest ones of people need, who fetch the rest.
FIRST_BOOT_MAX_CHARS = 64 * 1024
#: Of what it wrote, its end is kept.
LOG_MAX_CHARS = 4096
FINISH_HEADER = "x-malleable-finish"

_RUN = """\
#!/bin/sh
# Runs a script once, at this system's first start, and reports to its network's gateway how that ended.
umask 077
place=$(mktemp -d /var/tmp/first-boot.XXXXXX 2>/dev/null || mktemp -d) || exit 1
cat >"$place/script" <<'{end}'
{script}
{end}
chmod 700 "$place/script"
(cd / && "$place/script") </dev/null >"$place/log" 2>&1
status=$?
cat "$place/log"
read -r gateway 2>/dev/null </sys/firmware/ibft/target0/ip-addr || gateway=169.254.169.254
tries=0
until busybox wget -q -O "$place/finish" "http://$gateway/metadata/finish" 2>/dev/null ||
    curl -fsS -o "$place/finish" "http://$gateway/metadata/finish" 2>/dev/null; do
    tries=$((tries + 1))
    [ "$tries" -lt 720 ] || break
    sleep 5
done
sh "$place/finish" "$status" "$place/log"
rm -rf "$place"
exit "$status"
"""

_FINISH = """\
#!/bin/sh
# finish STATUS [LOG-FILE]: reports once how this system's first boot ended, with the end of a log; tries for an hour.
url="http://{gateway}/metadata/finish?status=${{1:-0}}"
header="X-Malleable-Finish: {token}"
log=$(tail -c {log_bytes} "${{2:-/dev/null}}" | tr -cd '\\11\\12\\40-\\176')
report() {{
    if command -v curl >/dev/null; then
        printf '%s' "$log" | curl -s -m 60 -o /dev/null -w '%{{http_code}}' -H "$header" --data-binary @- "$url"
    else
        busybox wget -q -O /dev/null --header "$header" --post-data "$log" "$url" 2>&1 && echo 200
    fi
}}
tries=0
while :; do
    case "$(report)" in
    *200 | *409*) exit 0 ;; # taken, now or before
    *400* | *403*) exit 1 ;; # never will be
    esac
    tries=$((tries + 1))
    [ "$tries" -lt 720 ] || exit 1
    sleep 5
done
"""


def first_boot(script: str) -> bytes:
    """Wrap a project's script, to be the user-data of its system. Errors: Invalid."""
    if not script.startswith("#!"):
        raise Invalid("The first-boot script does not say what runs it.", fix='Begin it with "#!/bin/sh".')
    end = f"END-{secrets.token_hex(8)}"
    return _RUN.replace("{end}", end).replace("{script}", script.removesuffix("\n")).encode()


def finish_token(boot_token: Secret) -> Secret:
    """Make the token of one arming's only report; it tells nothing of the token it is made from."""
    digest = hmac.new(boot_token.reveal().encode(), b"finish", hashlib.sha256)
    return Secret(digest.hexdigest()[:32])


def finish(gateway_address: str, token: Secret) -> str:
    """Write the hook that reports. A secret inside."""
    return _FINISH.format(gateway=gateway_address, token=token.reveal(), log_bytes=LOG_MAX_CHARS)


def parse_log(raw: bytes) -> str:
    """Keep the end of a log, of plain characters alone: it is shown on terminals."""
    text = raw[-LOG_MAX_CHARS:].decode("ascii", errors="replace")
    return "".join(c if c in "\n\t" or (c.isascii() and c.isprintable()) else "?" for c in text)
