"""Certificates for brokers on this machine: an authority of its own and one certificate for 127.0.0.1.

For tests and trials only: the keys lie unencrypted in a folder that is deleted with the brokers.
"""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


def write_certificates(folder: Path) -> None:
    """Write ``ca.pem`` (what clients trust) and ``broker.pem`` (key and certificate of the brokers)."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = _name("Rewardloop test authority")
    signed_by_itself = _certificate(authority, authority, authority_key.public_key())
    ca = signed_by_itself.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    here = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("localhost")])
    broker = _certificate(_name("localhost"), authority, key.public_key()).add_extension(here, critical=False)
    (folder / "ca.pem").write_bytes(_pem(ca.sign(authority_key, hashes.SHA256())))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "broker.pem").write_bytes(private + _pem(broker.sign(authority_key, hashes.SHA256())))


def _certificate(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)
