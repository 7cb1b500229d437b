"""Certificates of an authority that lives for one test run."""

import datetime
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from msgspec import Struct

VALID = datetime.timedelta(days=2)


class Identity(Struct, frozen=True):
    """Who a certificate says one is, as PEM text."""

    certificate: str
    key: str
    """PKCS #8, not encrypted."""

    def encrypted_key(self, password: str) -> str:
        """The key as PKCS #8 that ``password`` opens."""
        key = serialization.load_pem_private_key(self.key.encode(), None)
        locked = serialization.BestAvailableEncryption(password.encode())
        return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked).decode()


class Authority:
    """Signs for localhost and 127.0.0.1, and for clients."""

    def __init__(self, name: str = "esm tests") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        builder = self._builder(self._name, self._key.public_key()).add_extension(usage, critical=True)
        signed = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(
            self._key, hashes.SHA256()
        )
        self.certificate = _pem(signed)
        """What whoever trusts this authority is given: PEM."""

    def server(self) -> Identity:
        """A server on this machine."""
        names = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        return self._issue("localhost", names)

    def client(self, name: str = "esm") -> Identity:
        """A client called ``name``."""
        return self._issue(name, None)

    def _issue(self, name: str, names: x509.SubjectAlternativeName | None) -> Identity:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key.public_key()).add_extension(
            x509.BasicConstraints(ca=False, path_length=None), critical=True
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        return Identity(_pem(builder.sign(self._key, hashes.SHA256())), text)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        owner, signer = x509.SubjectKeyIdentifier, x509.AuthorityKeyIdentifier
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + VALID)
            .add_extension(owner.from_public_key(key), critical=False)
            .add_extension(signer.from_issuer_public_key(self._key.public_key()), critical=False)
        )


def client_context(authority: str, identity: Identity | None, folder: Path) -> ssl.SSLContext:
    """TLS that trusts ``authority`` (PEM) and shows ``identity``; ``folder`` takes a file, which ssl insists on."""
    context = ssl.create_default_context(cadata=authority)
    if identity is not None:
        file = folder / "identity.pem"
        file.write_text(identity.key + identity.certificate, encoding="ascii")
        context.load_cert_chain(file)
    return context


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
