#!/usr/bin/python
"""What an HTTPS endpoint shows and what it asks for, kept in a folder of the control host: certificate and password."""

from __future__ import annotations

import datetime
import ipaddress
import os
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DOCUMENTATION = r"""
module: endpoint_credentials
short_description: An endpoint's certificate, from an own certificate authority, and its password
description:
  - Keeps C(ca.key), C(ca.crt), C(NAME.key), C(NAME.crt) and, where there is a password, its file; all but the
    certificates are 0600.
  - Issues again what is missing, does not fit its key, its authority or the names, or ends within
    O(renew_before_days).
  - One module for all, as the chain of community.crypto's modules fails in check mode while a key does not exist yet.
options:
  directory:
    description: The folder; it must exist.
    type: path
    required: true
  name:
    description: The certificate's file name and common name.
    type: str
    required: true
  state:
    description: C(absent) removes the files; the authority's stay.
    type: str
    choices: [present, absent]
    default: present
  authority:
    description: The authority's common name.
    type: str
    required: true
  subject_alt_names:
    description: DNS names and IP addresses that the certificate is for.
    type: list
    elements: str
    required: true
  valid_days:
    description: How long the certificate lives; the authority lives ten times as long.
    type: int
    default: 365
  renew_before_days:
    description: Days left at which a certificate is issued again.
    type: int
    default: 30
  password:
    description: What the endpoint asks for, where it does.
    type: str
  password_file:
    description: The name of its file, C(NAME.password) where it is not given.
    type: str
author: Tradewatch
"""

EXAMPLES = r"""
- name: Keep the certificate and the password
  endpoint_credentials:
    directory: "{{ state_dir }}"
    name: prometheus
    authority: Tradewatch lab
    subject_alt_names: [prometheus.crypto-monitoring.svc, 192.0.2.10]
    password: "{{ vault_prometheus_password }}"
"""

RETURN = r"""
written:
  description: What was issued again (names of the pairs, without suffix), written, closed or removed (names of files).
  type: list
  returned: always
"""

Pair = tuple[ec.EllipticCurvePrivateKey, x509.Certificate]


def alternative_names(names: list[str]) -> list[x509.GeneralName]:
    """The names as a certificate holds them, sorted, each once."""
    found: list[x509.GeneralName] = []
    for name in sorted(set(names)):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found


def load(directory: Path, name: str) -> Pair | None:
    """The key and its certificate, None where one is missing, unreadable or does not fit the other."""
    try:
        key = serialization.load_pem_private_key((directory / f"{name}.key").read_bytes(), None)
        certificate = x509.load_pem_x509_certificate((directory / f"{name}.crt").read_bytes())
    except (FileNotFoundError, ValueError, TypeError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
        return None
    return key, certificate


def lasts(certificate: x509.Certificate, days: int, now: datetime.datetime) -> bool:
    """Whether the certificate is still valid after so many days."""
    return certificate.not_valid_after_utc > now + datetime.timedelta(days=days)


def fits(pair: Pair, authority: Pair, names: list[x509.GeneralName]) -> bool:
    """Whether the certificate is the authority's and for exactly these names."""
    certificate = pair[1]
    try:
        certificate.verify_directly_issued_by(authority[1])
        held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (InvalidSignature, ValueError, TypeError, x509.ExtensionNotFound):
        return False
    return set(held) == set(names)


def issue(
    common_name: str, authority: Pair | None, names: list[x509.GeneralName], days: int, now: datetime.datetime
) -> Pair:
    """A new key and its certificate: signed by the authority, or self-signed as one."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    signer, issuer = (authority[0], authority[1].subject) if authority else (key, subject)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))  # the hosts' clocks may be a little behind
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=0 if not authority else None), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=authority is not None,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=authority is None,
                crl_sign=authority is None,
                encipher_only=False,
                decipher_only=False,
            ),
            True,
        )
    )
    if authority:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False
        )
    return key, builder.sign(signer, hashes.SHA256())


def write(path: Path, content: bytes, mode: int) -> None:
    """Put a file in place in one step, never readable by more than its mode says."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(content)
    os.replace(temporary, path)


def save(directory: Path, name: str, pair: Pair) -> None:
    """Write a key and its certificate."""
    key = pair[0].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write(directory / f"{name}.key", key, 0o600)
    write(directory / f"{name}.crt", pair[1].public_bytes(serialization.Encoding.PEM), 0o644)


def ensure(parameters: dict[str, Any], dry_run: bool, now: datetime.datetime) -> list[str]:
    """Bring the files to their state; returns what differed."""
    if parameters["state"] == "absent":
        return remove(parameters, dry_run)
    written = ensure_certificate(parameters, dry_run, now)
    if parameters["password"] is not None:
        written += ensure_password(parameters, dry_run)
    return written


def ensure_certificate(parameters: dict[str, Any], dry_run: bool, now: datetime.datetime) -> list[str]:
    """Issue what is to be issued; returns the names."""
    directory = Path(parameters["directory"])
    names = alternative_names(parameters["subject_alt_names"])
    renew, days = parameters["renew_before_days"], parameters["valid_days"]
    issued = []
    authority = load(directory, "ca")
    # An authority ends before the certificates it would sign: renew it while one can still live its whole time.
    if authority is None or not lasts(authority[1], renew + days, now):
        authority = issue(parameters["authority"], None, [], days * 10, now)
        issued.append("ca")
        if not dry_run:
            save(directory, "ca", authority)
    pair = load(directory, parameters["name"])
    if pair is None or not lasts(pair[1], renew, now) or not fits(pair, authority, names):
        issued.append(parameters["name"])
        if not dry_run:
            save(directory, parameters["name"], issue(parameters["name"], authority, names, days, now))
    for name in ("ca", parameters["name"]):
        key = directory / f"{name}.key"
        if name not in issued and key.stat().st_mode & 0o777 != 0o600:
            issued.append(f"{name}.key mode")
            if not dry_run:
                key.chmod(0o600)
    return issued


def ensure_password(parameters: dict[str, Any], dry_run: bool) -> list[str]:
    """Write the password's file where it is another one or others may read it; returns its name then."""
    path, content = password_path(parameters), parameters["password"].encode()
    if path.is_file() and path.read_bytes() == content and path.stat().st_mode & 0o777 == 0o600:
        return []
    if not dry_run:
        write(path, content, 0o600)
    return [path.name]


def remove(parameters: dict[str, Any], dry_run: bool) -> list[str]:
    """Remove all but the authority; returns the names of the files that were there."""
    directory, name = Path(parameters["directory"]), parameters["name"]
    found = [
        path
        for path in (directory / f"{name}.crt", directory / f"{name}.key", password_path(parameters))
        if path.exists()
    ]
    if not dry_run:
        for path in found:
            path.unlink()
    return [path.name for path in found]


def password_path(parameters: dict[str, Any]) -> Path:
    """Where the password is kept."""
    return Path(parameters["directory"]) / (parameters["password_file"] or f"{parameters['name']}.password")


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "authority": {"type": "str", "required": True},
            "subject_alt_names": {"type": "list", "elements": "str", "required": True},
            "valid_days": {"type": "int", "default": 365},
            "renew_before_days": {"type": "int", "default": 30},
            "password": {"type": "str", "no_log": True},
            "password_file": {"type": "str", "no_log": False},
        },
        supports_check_mode=True,
    )
    try:
        written = ensure(module.params, module.check_mode, datetime.datetime.now(datetime.UTC))
    except OSError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(written), written=written)


if __name__ == "__main__":
    main()
