"""errors.py: one tree, stable numbers, and errors that survive a pickle."""

import copy
import errno
import pickle
import re

import pytest

from smtp_async import errors
from smtp_async.errors import (
    BY_NUMBER,
    SOCKET_CODES,
    WINSOCK_ONLY,
    CommandRefused,
    CommunicationError,
    ConnectionLost,
    FeatureUnavailable,
    FileError,
    NotSent,
    ResolveError,
    SettingInUse,
    SMTPError,
    SocketError,
    Timeout,
    UsageError,
)
from smtp_async.model.envelope import Recipient
from smtp_async.model.receipt import Outcome, Receipt, Verdict
from smtp_async.model.reply import Reply

CLASSES = [errors.SMTPError, *(getattr(errors, name) for name in errors.__all__ if name != "SMTPError")]
REPLY = Reply(451, (b"4.3.0 later",))
RECEIPT = Receipt((Verdict(Recipient("b@example.org"), Outcome.NOT_SENT),))

#: The numbers of the components' errors; 301 and 302 occur in two of them with the same meaning.
NUMBERS = [
    *(118, 161, 162, 163, 164, 165, 166, 301, 302),
    *(100, 101, 102, 104, 106, 107, 112, 116, 201, 211, 212, 434, 1105, 1117, 1119, 1120),
    *(270, 271, 272, 273, 274, 275, 276, 280, 281, 282, 283, 284),
]
SOCKET_NUMBERS = [
    *(10004, 10009, 10013, 10014, 10022, 10024, *range(10035, 10067)),
    *(10068, 10069, 10070, 10071),
]
RESOLVER_NUMBERS = [11001, 11002, 11003, 11004]


def make(cls, **details):
    """An instance of any class."""
    if cls is FeatureUnavailable:
        return cls("what happened", needs="smtp-async[all]")
    return cls("what happened", **details)


def raised(error):
    with pytest.raises(SMTPError) as caught:
        raise error
    return caught.value


def twins(error):
    return [error.copy(), copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))]


def numbered(number):
    """The error with this number, made as the library makes it."""
    cls = BY_NUMBER[number]
    if cls is SettingInUse:
        settings = [name for name, its in SettingInUse.NUMBERS.items() if its == number]
        assert settings or number == 1119, "only the number of any other setting has none of its own"
        return SettingInUse.of(settings[0]) if settings else make(cls, code=number)
    if cls is SocketError:
        systems = [system for system, code in SOCKET_CODES.items() if code == number]
        assert systems or number in {10068, 10070, 10071}, "every name that Linux has is known"
        if not systems:
            return SocketError("what happened", winerror=number)
        return SocketError.of(OSError(systems[0], "what the system said"), "the connection failed")
    return make(cls) if cls.code == number else make(cls, errno=-2, code=number)


@pytest.mark.parametrize("number", [*NUMBERS, *SOCKET_NUMBERS, *RESOLVER_NUMBERS])
def test_a_number_of_the_components_is_carried_by_its_class(number):
    error = raised(numbered(number))
    assert (error.code, type(error)) == (number, BY_NUMBER[number])
    assert [twin.code for twin in twins(error)] == [number] * 4


def test_every_errno_of_a_number_leads_to_it():
    for system, number in SOCKET_CODES.items():
        error = raised(SocketError.of(OSError(system, "what the system said"), "the connection failed"))
        assert (error.code, error.errno) == (number, system)
        assert isinstance(error.__cause__, OSError)


@pytest.mark.parametrize(
    ("system", "number"),
    [
        (errno.ECONNREFUSED, 10061),
        (errno.ETIMEDOUT, 10060),
        (errno.ECONNRESET, 10054),
        (errno.EPIPE, 10054),
        (errno.EPERM, 10013),
        (errno.EACCES, 10013),
        (errno.EAGAIN, 10035),
        (errno.EHOSTUNREACH, 10065),
        (errno.EADDRINUSE, 10048),
    ],
)
def test_well_known_socket_errors(system, number):
    assert SOCKET_CODES[system] == number


@pytest.mark.parametrize("number", [*WINSOCK_ONLY, 10061])
def test_a_winsock_number_needs_no_errno(number):
    assert BY_NUMBER[number] is SocketError
    assert raised(SocketError("x", winerror=number)).code == number
    assert set(WINSOCK_ONLY) == {10067, 10091, 10092, 10093}
    assert not set(WINSOCK_ONLY) & set(SOCKET_CODES.values())


def test_a_socket_error_without_a_number_of_its_own_is_a_failure_to_communicate():
    for error in (SocketError("x", errno=errno.ENOENT), SocketError("x")):
        assert error.code == CommunicationError.code == 162


@pytest.mark.parametrize("number", RESOLVER_NUMBERS)
def test_a_resolver_number(number):
    assert BY_NUMBER[number] is ResolveError
    error = raised(ResolveError("x", errno=-2, code=number))
    assert (error.code, error.errno) == (number, -2)
    assert error.temporary is (number == 11002)


@pytest.mark.parametrize("number", [117, 213])
def test_numbers_that_no_longer_mean_anything_are_never_raised(number):
    assert number not in BY_NUMBER
    assert not any(cls.code == number for cls in CLASSES)


def test_the_numbers_are_complete():
    ours = {number for number in BY_NUMBER if number >= 20000}
    assert set(BY_NUMBER) - ours == {*NUMBERS, *SOCKET_CODES.values(), *WINSOCK_ONLY, *RESOLVER_NUMBERS}
    assert ours == {cls.code for cls in CLASSES if cls.code >= 20000}


@pytest.mark.parametrize(
    ("setting", "number"),
    [
        ("port", 100),
        ("host", 101),
        ("local_port", 106),
        ("local_address", 107),
        ("max_line_length", 112),
        ("anything", 100),
    ],
)
def test_a_setting_in_use_has_its_own_number(setting, number):
    error = SettingInUse.of(setting)
    assert error.code == number
    assert setting in str(error)
    assert error.copy().code == number


# --- the tree ---


def drawn():
    """The tree of the module's docstring: name → (parent, the rest of the line)."""
    tree: dict[str, tuple[str | None, str]] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^    ([│├└─ ]*)([A-Za-z]+)(?: \([A-Za-z]+\))?\s+(\d.*)$", line)
        if match is None:
            continue
        depth, name = len(match[1]), match[2]
        while path and path[-1][0] >= depth:
            path.pop()
        tree[name] = (path[-1][1] if path else None, match[3])
        path.append((depth, name))
    return tree


def test_the_docstring_draws_every_class_with_its_number_below_its_parent():
    tree = drawn()
    assert set(tree) == {cls.__name__ for cls in CLASSES}
    for cls in CLASSES:
        parent, rest = tree[cls.__name__]
        if cls is SMTPError:
            assert parent is None
        else:
            assert parent in {base.__name__ for base in cls.__bases__}
        assert rest.startswith(str(cls.code)), cls


def test_the_docstring_names_builtin_parents():
    named = dict(re.findall(r"([A-Za-z]+) \(([A-Za-z]+)\) +\d", errors.__doc__ or ""))
    for name, builtin in named.items():
        assert issubclass(getattr(errors, name), getattr(__import__("builtins"), builtin))
    assert named["Timeout"] == "TimeoutError"


def test_every_class_is_public_and_explained():
    defined = [
        value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, SMTPError)
    ]
    assert {cls.__name__ for cls in defined} == set(errors.__all__)
    assert all(cls.__doc__ for cls in defined)
    assert len(set(errors.__all__)) == len(errors.__all__)


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (Timeout, TimeoutError),
        (Timeout, OSError),
        (ConnectionLost, ConnectionError),
        (CommunicationError, ConnectionError),
        (FileError, OSError),
        (UsageError, RuntimeError),
        (errors.InvalidArgument, ValueError),
        (errors.InvalidAddress, ValueError),
        (FeatureUnavailable, NotImplementedError),
        (errors.StartTLSRefused, errors.TLSError),
    ],
)
def test_what_python_programs_already_catch(cls, builtin):
    with pytest.raises(builtin):
        raise make(cls)


def test_a_timeout_is_201_and_the_builtin():
    error = Timeout("no reply to MAIL within 300 s", stage="MAIL")
    assert (error.code, error.stage, BY_NUMBER[201]) == (201, "MAIL", Timeout)
    assert isinstance(error, TimeoutError)


# --- four questions ---


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_answers_the_four_questions(cls):
    error = make(cls)
    assert isinstance(error.remote, bool)
    assert isinstance(error.temporary, bool)
    assert isinstance(error.connection_usable, bool)
    assert (error.reply, error.stage, error.receipt) == (None, None, None)
    assert str(error) == error.message == "what happened"
    assert not (isinstance(error, UsageError) and error.remote)
    assert not (isinstance(error, CommunicationError | errors.TLSError) and error.connection_usable)


@pytest.mark.parametrize(
    ("code", "temporary", "usable"), [(450, True, True), (550, False, True), (421, True, False)]
)
def test_a_reply_decides(code, temporary, usable):
    error = CommandRefused("MAIL was refused", reply=Reply(code, (b"no",)), stage="MAIL")
    assert (error.temporary, error.connection_usable, error.remote) == (temporary, usable, True)
    assert str(error) == f"MAIL was refused: {code} no"
    assert str(CommandRefused(reply=Reply(code, (b"no",)))) == f"{code} no"


def test_another_number_can_be_given():
    assert SMTPError("x", code=7).code == 7
    assert SMTPError("x").code == 20000
    assert SMTPError().message == ""


def test_a_missing_feature_names_what_it_needs():
    assert make(FeatureUnavailable).needs == "smtp-async[all]"


# --- pickles and copies ---


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_pickles_and_copies_with_all_it_knows(cls):
    error = make(cls)
    error.reply, error.stage, error.receipt = REPLY, "MAIL", RECEIPT
    error.code = 4711
    error.add_note("seen twice")
    error.extra = ["anything"]
    error.__cause__ = ConnectionResetError(104, "reset by peer")
    for twin in twins(error):
        assert type(twin) is cls
        assert twin is not error
        assert vars(twin) == vars(error)
        assert twin.args == error.args
        assert str(twin) == str(error)
        assert (twin.code, twin.reply, twin.receipt) == (4711, REPLY, RECEIPT)
        assert twin.__notes__ == ["seen twice"]
        assert isinstance(twin.__cause__, ConnectionResetError)
        assert twin.__cause__.args == (104, "reset by peer")
        assert twin.__traceback__ is None


@pytest.mark.parametrize(
    ("error", "names"),
    [
        (SocketError("x", errno=errno.ECONNREFUSED), ["errno", "code"]),
        (ResolveError("x", errno=-3, code=11002), ["errno", "code", "temporary"]),
        (make(FeatureUnavailable), ["needs"]),
    ],
)
def test_particulars_survive(error, names):
    for twin in twins(error):
        for name in names:
            assert getattr(twin, name) == getattr(error, name) is not None


def test_what_the_system_says_survives():
    error = FileError("cannot be read")
    error.filename, error.strerror, error.errno = "letter.txt", "No such file", errno.ENOENT
    for twin in twins(error):
        assert (twin.filename, twin.strerror, twin.errno) == ("letter.txt", "No such file", errno.ENOENT)
        assert str(twin) == "cannot be read"


def test_a_twin_without_a_cause_shows_its_context():
    twin = NotSent("x").copy()
    assert twin.__suppress_context__ is False


def test_twins_are_raised_apart():
    error = ConnectionLost("lost")
    first, second = error.copy(), error.copy()
    raised(first)
    assert first.__traceback__ is not None
    assert second.__traceback__ is error.__traceback__ is None
    first.receipt = RECEIPT
    assert second.receipt is None


def test_the_cause_of_a_cause_survives():
    inner = SocketError.of(OSError(errno.ECONNRESET, "reset"), "writing failed")
    outer = NotSent("not sent")
    outer.__cause__ = inner
    twin = pickle.loads(pickle.dumps(outer))
    assert isinstance(twin.__cause__, SocketError)
    assert twin.__cause__.code == 10054
    assert isinstance(twin.__cause__.__cause__, ConnectionResetError)
