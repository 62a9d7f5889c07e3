"""Ed25519 keys: published vectors, private files, and what is no key."""

from __future__ import annotations

import base64
import os
import stat
import subprocess
import warnings

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from seeded import from_seed

from pytest_decisionos.errors import KeysError, UsageError
from pytest_decisionos.trust import ed25519
from pytest_decisionos.trust.keys import fingerprint
from pytest_decisionos.trust.trustfile import ROLES

LONG = (
    "08b8b2b733424243760fe426a4b54908632110a66c2f6591eabd3345e3e4eb98fa6e264bf09efe12ee50f8f54e9f77b1"
    "e355f6c50544e23fb1433ddf73be84d879de7c0046dc4996d9e773f4bc9efe5738829adb26c81b37c93a1b270b20329d"
    "658675fc6ea534e0810a4432826bf58c941efb65d57a338bbd2e26640f89ffbc1a858efcb8550ee3a5e1998bd177e93a"
    "7363c344fe6b199ee5d02e82d522c4feba15452f80288a821a579116ec6dad2b3b310da903401aa62100ab5d1a36553e"
    "06203b33890cc9b832f79ef80560ccb9a39ce767967ed628c6ad573cb116dbefefd75499da96bd68a8a97b928a8bbc10"
    "3b6621fcde2beca1231d206be6cd9ec7aff6f6c94fcd7204ed3455c68c83f4a41da4af2b74ef5c53f1d8ac70bdcb7ed1"
    "85ce81bd84359d44254d95629e9855a94a7c1958d1f8ada5d0532ed8a5aa3fb2d17ba70eb6248e594e1a2297acbbb39d"
    "502f1a8c6eb6f1ce22b3de1a1f40cc24554119a831a9aad6079cad88425de6bde1a9187ebb6092cf67bf2b13fd65f270"
    "88d78b7e883c8759d2c4f5c65adb7553878ad575f9fad878e80a0c9ba63bcbcc2732e69485bbc9c90bfbd62481d9089b"
    "eccf80cfe2df16a2cf65bd92dd597b0707e0917af48bbb75fed413d238f5555a7a569d80c3414a8d0859dc65a46128ba"
    "b27af87a71314f318c782b23ebfe808b82b0ce26401d2e22f04d83d1255dc51addd3b75a2b1ae0784504df543af8969b"
    "e3ea7082ff7fc9888c144da2af58429ec96031dbcad3dad9af0dcbaaaf268cb8fcffead94f3c7ca495e056a9b47acdb7"
    "51fb73e666c6c655ade8297297d07ad1ba5e43f1bca32301651339e22904cc8c42f58c30c04aafdb038dda0847dd988d"
    "cda6f3bfd15c4b4c4525004aa06eeff8ca61783aacec57fb3d1f92b0fe2fd1a85f6724517b65e614ad6808d6f6ee34df"
    "f7310fdc82aebfd904b01e1dc54b2927094b2db68d6f903b68401adebf5a7e08d78ff4ef5d63653a65040cf9bfd4aca7"
    "984a74d37145986780fc0b16ac451649de6188a7dbdf191f64b5fc5e2ab47b57f7f7276cd419c17a3ca8e1b939ae49e4"
    "88acba6b965610b5480109c8b17b80e1b7b750dfc7598d5d5011fd2dcc5600a32ef5b52a1ecc820e308aa342721aac09"
    "43bf6686b64b2579376504ccc493d97e6aed3fb0f9cd71a43dd497f01f17c0e2cb3797aa2a2f256656168e6c496afc5f"
    "b93246f6b1116398a346f1a641f3b041e989f7914f90cc2c7fff357876e506b50d334ba77c225bc307ba537152f3f161"
    "0e4eafe595f6d9d90d11faa933a15ef1369546868a7f3a45a96768d40fd9d03412c091c6315cf4fde7cb68606937380d"
    "b2eaaa707b4c4185c32eddcdd306705e4dc1ffc872eeee475a64dfac86aba41c0618983f8741c5ef68d3a101e8a3b8ca"
    "c60c905c15fc910840b94c00a0b9d0"
)
# RFC 8032 §7.1: seed, public key, message, signature.
VECTORS = [
    ("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60", "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "", "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"),
    ("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb", "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72", "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"),
    ("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7", "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82", "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"),
    ("f5e5767cf153319517630f226876b86c8160cc583bc013744c6bf255f5cc0ee5", "278117fc144c72340f67d0f2316e8386ceffbf2b2428c9c51fef7c597f1d426e", LONG, "0aab4c900501b3e24d7cdf4663326a3a87df5e4843b2cbdb67cbf6e460fec350aa5371b1508f9f4528ecea23c436d94b5e8fcd4f681e30a6ac00a9704a188a03"),
    ("833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42", "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf", "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f", "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("seed", "public", "message", "signature"), VECTORS, ids=["1", "2", "3", "1024", "abc"]
)
def test_rfc_8032(seed, public, message, signature):
    key, said, sig = (
        from_seed(bytes.fromhex(seed)),
        bytes.fromhex(message),
        bytes.fromhex(signature),
    )
    assert key.keyid == key.public.keyid == fingerprint(bytes.fromhex(public))
    assert key.sign(said) == sig
    assert key.public.verifies(sig, said)
    assert ed25519.parse_public(key.public.pem).verifies(sig, said)
    assert not key.public.verifies(sig, said + b"x")
    other = from_seed(bytes(32))
    assert not other.public.verifies(sig, said)


def test_any_other_signature_does_not_verify():
    key = from_seed(bytes(32))
    good = key.sign(b"m")
    order = 2**252 + 27742317777372353535851937790883648493
    again = good[:32] + (int.from_bytes(good[32:], "little") + order).to_bytes(32, "little")
    for bad in (b"", good[:-1], good + b"\0", bytes(64), b"\xff" * 64, again):
        assert not key.public.verifies(bad, b"m")
    for bit in range(512):
        changed = bytearray(good)
        changed[bit // 8] ^= 1 << bit % 8
        assert not key.public.verifies(bytes(changed), b"m")


def test_generated_keys_differ():
    assert ed25519.generate().keyid != ed25519.generate().keyid


# Files


def test_written_and_loaded(tmp_path):
    path = tmp_path / "키" / "gate.key"
    key = ed25519.generate()
    old = os.umask(0)
    try:
        ed25519.write_private(path, key)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    public = ed25519.public_beside(path)
    assert public.name == "gate.pub"
    assert stat.S_IMODE(public.stat().st_mode) == 0o644
    assert sorted(os.listdir(path.parent)) == ["gate.key", "gate.pub"]
    assert ed25519.load_private(path).keyid == key.keyid
    assert ed25519.load_private(path).sign(b"m") == key.sign(b"m")
    assert ed25519.load_public(public).keyid == key.keyid


def test_openssl_reads_what_was_written(tmp_path):
    path, message, signature = tmp_path / "k.key", tmp_path / "m", tmp_path / "s"
    key = ed25519.generate()
    ed25519.write_private(path, key)
    message.write_bytes(b"said")
    signature.write_bytes(key.sign(b"said"))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", tmp_path / "k.pub", "-rawin",
               "-in", message, "-sigfile", signature]  # fmt: skip
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        pytest.skip("no openssl here")
    assert "Signature Verified Successfully" in result.stdout, result.stderr


@pytest.mark.parametrize("there", ["gate.key", "gate.pub"])
def test_a_key_is_never_overwritten(tmp_path, there):
    (tmp_path / there).write_text("precious")
    with pytest.raises(UsageError, match=f"{there}: .*never overwritten"):
        ed25519.write_private(tmp_path / "gate.key", ed25519.generate())
    assert os.listdir(tmp_path) == [there]
    assert (tmp_path / there).read_text() == "precious"


def test_a_dangling_link_is_in_the_way(tmp_path):
    (tmp_path / "gate.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="never overwritten"):
        ed25519.write_private(tmp_path / "gate.key", ed25519.generate())
    assert os.listdir(tmp_path) == ["gate.key"]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o606, 0o611])
def test_a_private_key_that_others_may_use(tmp_path, mode):
    path = tmp_path / "gate.key"
    ed25519.write_private(path, ed25519.generate())
    path.chmod(mode)
    with pytest.raises(KeysError, match=f"others may use this secret; found mode {mode:04o}"):
        ed25519.load_private(path)


def test_a_link_to_a_private_key(tmp_path):
    ed25519.write_private(tmp_path / "gate.key", ed25519.generate())
    (tmp_path / "link").symlink_to(tmp_path / "gate.key")
    with pytest.raises(KeysError, match="cannot be read"):
        ed25519.load_private(tmp_path / "link")


def pem(key, how=None, form=PrivateFormat.PKCS8):
    return key.private_bytes(Encoding.PEM, form, how or NoEncryption())


ED = Ed25519PrivateKey.from_private_bytes(bytes(32))
PUBLIC = ED.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
NO_PRIVATE = {
    "rsa": pem(rsa.generate_private_key(65537, 2048)),
    "p256": pem(ec.generate_private_key(ec.SECP256R1())),
    "sec1": pem(ec.generate_private_key(ec.SECP256R1()), form=PrivateFormat.TraditionalOpenSSL),
    "x25519": pem(x25519.X25519PrivateKey.generate()),
    "encrypted": pem(ED, BestAvailableEncryption(b"password")),
    "openssh": pem(ED, form=PrivateFormat.OpenSSH),
    "public": PUBLIC,
    "raw": ED.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()),
    "der": ED.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
    "empty": b"",
    "cut": pem(ED)[:60],
    "changed": pem(ED).replace(b"MC4C", b"MC4D"),
    "large": pem(ED) + b" " * 5000,
    "binary": bytes(range(256)),
}


@pytest.mark.parametrize("kind", NO_PRIVATE)
def test_what_is_no_private_key(tmp_path, kind):
    path = tmp_path / "gate.key"
    path.write_bytes(NO_PRIVATE[kind])
    path.chmod(0o600)
    with pytest.raises(KeysError) as caught:
        ed25519.load_private(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert "not an Ed25519 private key" in said or "too large" in said
    assert "\n" not in said
    for line in NO_PRIVATE[kind].split(b"\n"):
        assert len(line) < 20 or line.decode("latin-1") not in said


NO_PUBLIC = {
    "private": pem(ED),
    "rsa": rsa.generate_private_key(65537, 2048).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    "p256": ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    "ssh": ED.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
    "empty": b"",
    "cut": PUBLIC[:50],
    "large": PUBLIC + b" " * 5000,
    "text": "한글".encode(),
}  # fmt: skip


@pytest.mark.parametrize("kind", NO_PUBLIC)
def test_what_is_no_public_key(tmp_path, kind):
    path = tmp_path / "gate.pub"
    path.write_bytes(NO_PUBLIC[kind])
    with pytest.raises(KeysError, match=r"gate\.pub: (not an Ed25519 public key in PEM|too large)"):
        ed25519.load_public(path)
    with pytest.raises(KeysError, match="not an Ed25519 public key"):
        ed25519.parse_public(NO_PUBLIC[kind])


P = 2**255 - 19
# The points whose order divides 8, and numbers that are not reduced, each with both signs of x.
ORDER_8 = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"
Y8 = int.from_bytes(bytes.fromhex(ORDER_8), "little")


@pytest.mark.parametrize("y", [0, 1, P - 1, Y8, P - Y8, P, P + 1, P + 4, 2**255 - 1])
@pytest.mark.parametrize("sign", [0, 1])
def test_points_that_are_nobodys_own(y, sign):
    raw = (y | sign << 255).to_bytes(32, "little")
    der = bytes.fromhex("302a300506032b6570032100") + raw  # RFC 8410 §10.1
    body = base64.b64encode(der).decode()
    with pytest.raises(KeysError, match="its point is weak|not an Ed25519 public key"):
        ed25519.parse_public(f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")


def test_half_a_character_is_no_key():
    with pytest.raises(KeysError, match="not an Ed25519 public key"):
        ed25519.parse_public(PUBLIC.decode() + "\ud800")


def test_missing_files(tmp_path):
    with pytest.raises(KeysError, match="No such file"):
        ed25519.load_private(tmp_path / "none")
    with pytest.raises(KeysError, match="no such file"):
        ed25519.load_public(tmp_path / "none")


def test_repr_tells_no_secret():
    key = from_seed(b"\x07" * 32)
    assert key.keyid[:16] in repr(key)
    assert "07" * 16 not in repr(key)


# Names


def test_file_names():
    others = [role for role in ROLES if role != "judge"]
    assert [ed25519.file_name(role) for role in others] == [f"{role}.key" for role in others]
    assert ed25519.file_name("judge", "witness-2") == "judge-witness-2.key"


@pytest.mark.parametrize(
    ("role", "judge", "says"),
    [
        ("root", None, "--role: no such role; found root; expected gate, judge"),
        ("judge", None, "is named for the role judge"),
        ("gate", "witness", "is named for the role judge"),
        *(
            ("judge", bad, "--judge: no name of a judge")
            for bad in ("", "../gate", "a/b", "A", "한글", "a" * 64, "-a", "a\n")
        ),
    ],
)
def test_names_that_are_none(role, judge, says):
    with pytest.raises(UsageError, match=says):
        ed25519.file_name(role, judge)


def test_no_warning_of_the_library_comes_through(tmp_path):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        ed25519.write_private(tmp_path / "gate.key", ed25519.generate())
        ed25519.load_private(tmp_path / "gate.key")
    assert not seen
