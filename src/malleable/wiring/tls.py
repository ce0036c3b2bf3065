"""A certificate of our own, so that nothing off loopback ever travels in the clear."""

import ipaddress
import socket
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from malleable.domain.ports import Clock
from malleable.wiring.keys import write_private

VALID_DAYS = 397  #: as long as clients accept (CA/Browser Forum, since 2020)
RENEW_DAYS = 30


def own_certificate(directory: Path, host: str, clock: Clock) -> tuple[Path, Path]:
    """Return a certificate and its key for this host, made now if there is none or it ends soon."""
    certificate, key = directory / "server.pem", directory / "server.key"
    if not certificate.exists() or not key.exists() or _ends_soon(certificate, clock):
        _make(certificate, key, host, clock)
    return certificate, key


def _ends_soon(certificate: Path, clock: Clock) -> bool:
    ends = x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    return ends - clock.now() < timedelta(days=RENEW_DAYS)


def _make(certificate: Path, key: Path, host: str, clock: Clock) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, socket.gethostname()[:64])])
    now = clock.now()
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName(_names(host)), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(private, hashes.SHA256())
    )
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_private(key, pem.decode())
    certificate.write_bytes(built.public_bytes(serialization.Encoding.PEM))


def _names(host: str) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.DNSName(n) for n in {socket.gethostname(), socket.getfqdn(), "localhost"}]
    names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return [*names, x509.DNSName(host)]
    return names if address.is_unspecified or address.is_loopback else [*names, x509.IPAddress(address)]
