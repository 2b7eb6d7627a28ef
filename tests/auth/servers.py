"""The server's side of the mechanisms that the test kit does not know, for `ScriptedServer(mechanisms=…)`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Mapping
from typing import Any

from scramp import ScramException, ScramMechanism

Exchange = Generator[bytes, bytes, str | None]
Server = Callable[[Mapping[str, str], bytes | None], Exchange]

#: What Google and Microsoft answer to a token that has expired, with their fields.
REFUSAL = {"status": "400", "schemes": "Bearer", "scope": "https://mail.google.com/"}
#: Few: tests do not wait for a key.
ITERATIONS = 4096
SALT = b"0123456789abcdef"


def anonymous(users: Mapping[str, str], initial: bytes | None) -> Exchange:
    """ANONYMOUS."""
    message = initial if initial is not None else (yield b"")
    return message.decode() or "anonymous"


def external(users: Mapping[str, str], initial: bytes | None) -> Exchange:
    """EXTERNAL; the account is what the client says, or the one of the certificate."""
    message = initial if initial is not None else (yield b"")
    return message.decode() or "certificate"


def _token_server(prefix: Callable[[bytes], str | None], closing: bytes, refusal: Any) -> Server:
    def serve(users: Mapping[str, str], initial: bytes | None) -> Exchange:
        message = initial if initial is not None else (yield b"")
        fields = message.split(b"\1")
        user = prefix(fields[0])
        token = next((one[12:].decode() for one in fields if one.startswith(b"auth=Bearer ")), None)
        if user is not None and users.get(user, "") == token and message.endswith(b"\1\1"):
            return user
        answer = yield (refusal if isinstance(refusal, bytes) else json.dumps(refusal).encode())
        assert answer == closing, answer
        return None

    return serve


def _xoauth2_user(field: bytes) -> str | None:
    return field[5:].decode() if field.startswith(b"user=") else None


def _gs2_user(field: bytes) -> str | None:
    flag, account, end = field.split(b",")
    assert flag == b"n" and end == b""
    return account[2:].replace(b"=2C", b",").replace(b"=3D", b"=").decode() if account else "nobody"


def xoauth2(refusal: Any = REFUSAL) -> Server:
    """XOAUTH2; the users' passwords are their tokens."""
    return _token_server(_xoauth2_user, b"", refusal)


def oauthbearer(refusal: Any = REFUSAL) -> Server:
    """OAUTHBEARER; the users' passwords are their tokens."""
    return _token_server(_gs2_user, b"\1", refusal)


def scram(
    name: str, *, binding: tuple[str, bytes] | None = None, iterations: int = ITERATIONS, salt: bytes = SALT
) -> Server:
    """SCRAM by scramp; `binding` is what this server has of the channel, also where `name` is not a -PLUS."""

    def serve(users: Mapping[str, str], initial: bytes | None) -> Exchange:
        mechanism = ScramMechanism(name)

        asked: list[str] = []

        def lookup(user: str) -> Any:
            asked.append(user)
            password = users.get(user)
            return (
                mechanism.make_auth_info(password, salt=salt, iteration_count=iterations)
                if password
                else None
            )

        server = mechanism.make_server(lookup, channel_binding=binding)
        message = initial if initial is not None else (yield b"")
        try:
            server.set_client_first(message.decode())
            server.set_client_final((yield server.get_server_first().encode()).decode())
        except ScramException:
            if server.error is not None and server.stage is not None:
                yield f"e={server.error.value}".encode()
            return None
        answer = yield server.get_server_final().encode()
        assert answer == b"", answer
        return asked[0]

    return serve


def digest_md5(users: Mapping[str, str], initial: bytes | None) -> Exchange:
    """DIGEST-MD5, by the formulas of RFC 2831."""
    nonce = b"OA6MG9tEQGm2hh"
    answer = yield b'realm="lab.test",nonce="%b",qop="auth,auth-int",charset=utf-8,algorithm=md5-sess' % nonce
    got = {}
    for part in answer.decode().split(","):
        key, _, value = part.partition("=")
        got[key] = value.strip('"')

    def md5(data: bytes) -> bytes:
        return hashlib.md5(data).digest()

    secret = md5(f"{got['username']}:{got['realm']}:{users.get(got['username'], '')}".encode())
    a1 = md5(b":".join((secret, nonce, got["cnonce"].encode()))).hex()

    def response(method: str) -> str:
        a2 = md5(f"{method}:{got['digest-uri']}".encode()).hex()
        text = f"{a1}:{nonce.decode()}:{got['nc']}:{got['cnonce']}:{got['qop']}:{a2}"
        return md5(text.encode()).hex()

    if got["response"] != response("AUTHENTICATE"):
        return None
    last = yield b"rspauth=" + response("").encode()
    assert last == b"", last
    return got["username"]
