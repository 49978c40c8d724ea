"""Content Credentials (C2PA): a signed statement in an image file that a model made it, and how."""

import datetime
import functools
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from orchard import software
from orchard.errors import UserError, one_line
from orchard.shards import ShardHeader

SIGNED_BY = "signed_by"
"""Among the arguments of a set: the holder of the certificate."""
UNTRUSTED = "signingCredential.untrusted"
"""What a reader says of every certificate as long as nobody tells it whom to trust."""
PNG = "image/png"


class Signer:
    """A certificate chain with its private key, which stays in memory."""

    def __init__(self, holder: str, certificates: bytes, key: bytes, algorithm: str) -> None:
        import c2pa

        self.holder = holder
        """Subject of the certificate, as in RFC 4514."""
        self.generator = {"name": "orchard", "version": software.versions()["orchard"]}
        quick = {"builder": {"thumbnail": {"enabled": False}}, "verify": {"verify_after_sign": False}}
        info = c2pa.C2paSignerInfo(algorithm, certificates, key, None)
        self.context = c2pa.Context(c2pa.Settings.from_dict(quick), c2pa.Signer.from_info(info))

    def sign(self, png: bytes, source: str, **made_with: str) -> bytes:
        """The PNG file with a manifest: created by a model (``source``, IPTC's term), ``made_with`` what.

        Pixels and the other metadata stay; no two signatures are alike.
        """
        import c2pa

        action = {
            "action": "c2pa.created",
            "digitalSourceType": source,
            "softwareAgent": self.generator,
            "parameters": {f"orchard.{name}": value for name, value in made_with.items()},
        }
        manifest = {
            "claim_generator_info": [self.generator],
            "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
        }
        signed = io.BytesIO()
        with c2pa.Builder(manifest, self.context) as builder:
            builder.sign(PNG, io.BytesIO(png), signed)
        return signed.getvalue()


def holder(signer: Signer | None) -> str:
    """Who signs; empty where nobody does."""
    return signer.holder if signer else ""


def marked(header: ShardHeader, signer: Signer | None) -> ShardHeader:
    """The header with who signs in it: rows signed by others may not stand beside its own."""
    signed = {SIGNED_BY: signer.holder} if signer else {}
    return replace(header, arguments=header.arguments | signed)


def faults(png: bytes) -> list[str]:
    """What is wrong with the credentials of a PNG file, as codes of the C2PA specification.

    Raises:
        c2pa.C2paError: it has none.
    """
    import c2pa

    with c2pa.Reader(PNG, io.BytesIO(png)) as reader:
        found = (reader.get_validation_results() or {}).get("activeManifest", {}).get("failure", [])
    return [one["code"] for one in found if one["code"] != UNTRUSTED]


@functools.cache
def signer(files: tuple[Path, ...]) -> Signer | None:
    """What ``--sign CERT KEY`` signs with; None where nothing is signed.

    Raises:
        UserError: a file cannot be read or is of the wrong kind, the key is not the certificate's, it has
            expired, C2PA does not allow it, or the package is missing.
    """
    if not files:
        return None
    try:
        import c2pa
    except ModuleNotFoundError:
        raise UserError("--sign: needs the package c2pa-python; pip install -e '.[sign]'") from None
    certificates, key = files
    leaf, chain = _certificates(certificates)
    private, algorithm = _key(key)
    if private.public_key() != leaf.public_key():
        raise UserError(f"--sign: {key} is not the key of the first certificate in {certificates}")
    if leaf.not_valid_after_utc < datetime.datetime.now(datetime.UTC):
        raise UserError(f"--sign {certificates}: expired on {leaf.not_valid_after_utc:%Y-%m-%d}; renew it")
    try:
        found = Signer(leaf.subject.rfc4514_string(), chain, _pkcs8(private), algorithm)
        wrong = faults(found.sign(_smallest(), "", prompt=""))
    except c2pa.C2paError as error:
        wrong = [one_line(error)]
    if wrong:
        raise UserError(
            f"--sign {certificates}: C2PA does not take it ({', '.join(wrong)}); it wants a certificate for "
            "signing, with the chain to its authority behind it"
        )
    return found


def _certificates(path: Path) -> tuple[Any, bytes]:
    """The first certificate of a PEM file, and all of them as they are."""
    from cryptography import x509

    data = _read(path)
    try:
        return x509.load_pem_x509_certificates(data)[0], data
    except ValueError:
        raise UserError(f"--sign {path}: no certificates in PEM; give CERT, then KEY") from None


def _key(path: Path) -> tuple[Any, str]:
    """The private key in a PEM file, and what C2PA calls its algorithm."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_read(path), None)
    except TypeError:
        raise UserError(f"--sign {path}: has a passphrase; give a key without") from None
    except ValueError:
        raise UserError(f"--sign {path}: no private key in PEM; give CERT, then KEY") from None
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key, "ed25519"
    if isinstance(key, rsa.RSAPrivateKey):
        return key, "ps256"
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.key_size in (256, 384, 521):
        return key, {256: "es256", 384: "es384", 521: "es512"}[key.key_size]
    raise UserError(f"--sign {path}: of a kind that C2PA does not sign with; give EC, RSA or Ed25519")


def _read(path: Path) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except OSError as error:
        raise UserError(f"--sign {path}: cannot be read ({error.strerror}); give CERT, then KEY") from None


def _pkcs8(key: Any) -> bytes:
    """The one form of private keys that the signing library reads."""
    from cryptography.hazmat.primitives import serialization as forms

    return bytes(key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption()))


def _smallest() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (1, 1)).save(file, "PNG")
    return file.getvalue()
