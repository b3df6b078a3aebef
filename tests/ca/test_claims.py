"""Why: who may ask for what is decided by scopes alone, and JSON that is not JupyterHub's must stop right there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca.claims import (
    CONNECT_SCOPE,
    Claims,
    Running,
    TokenKind,
    TokenOwner,
    Via,
    build_claims,
    groups_of,
    judge_enrolment,
    judge_token,
    known_servers,
    running_servers,
    shared_servers,
)
from ca.errors import MalformedClaims, Reason, Refusal
from ca.names import Instance, Server, instance_id
from tests.ca import strategies

STARTED = "2026-11-21T23:12:26.279903Z"
ID = instance_id(STARTED)
OURS = "access:services!service=ssh"
ALICE, GPU = Instance(Server("alice"), ID), Instance(Server("alice", "gpu"), ID)


def server(**changes: object) -> dict[str, object]:
    """One server of a user model, as JupyterHub 6 writes it."""
    plain: dict[str, object] = {
        "name": "",
        "display_name": "",
        "full_name": "alice/",
        "last_activity": STARTED,
        "started": STARTED,
        "pending": None,
        "ready": True,
        "stopped": False,
        "url": "/user/alice/",
        "user_options": {"profile": "ssh", "enable_ssh": True},
        "progress_url": "/hub/api/users/alice/server/progress",
        "full_url": None,
        "full_progress_url": None,
    }
    return plain | changes


def user(*scopes: object, **changes: object) -> dict[str, object]:
    """A user model as `GET /hub/api/user` answers it."""
    plain: dict[str, object] = {
        "name": "alice",
        "kind": "user",
        "groups": ["students"],
        "admin": False,
        "user_info": None,
        "token_id": "a4",
        "session_id": "0da7",
        "scopes": list(scopes),
    }
    return plain | changes


def share(owner: str, name: str, *scopes: str) -> dict[str, object]:
    """One item of `GET /hub/api/users/bob/shared`."""
    return {
        "server": {"user": {"name": owner}, "name": name, "url": "/", "full_url": None, "ready": True},
        "scopes": list(scopes),
        "user": {"name": "bob"},
        "group": None,
        "kind": "user",
        "created_at": STARTED,
    }


IDENTITY = ("read:users:groups!user=alice", "read:users:name!user=alice")
OF_ALICE = ("access:servers!server=alice/", "read:users:activity!user=alice", "users:activity!user=alice", *IDENTITY)
OF_GPU = ("access:servers!server=alice/gpu", "read:users:activity!user=alice", "users:activity!user=alice", *IDENTITY)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        # a token that was made for us, by OAuth or by hand
        (user(OURS, "read:servers!user=alice", *IDENTITY), TokenOwner("alice", TokenKind.ACCESS)),
        (user(OURS, *OF_GPU), TokenOwner("alice", TokenKind.ACCESS)),
        (user(OURS, "self", "access:servers!user=alice"), TokenOwner("alice", TokenKind.ACCESS)),
        # a server's own token, good for that server only
        (user(*OF_ALICE), TokenOwner("alice", TokenKind.SERVER, Server("alice"))),
        (user(*OF_GPU), TokenOwner("alice", TokenKind.SERVER, Server("alice", "gpu"))),
        # a token that another service captured
        (user("access:services!service=other", *IDENTITY), Reason.WRONG_TOKEN),
        (user("access:services!service=ssh2", *IDENTITY), Reason.WRONG_TOKEN),
        (user("access:services!service=ss", *IDENTITY), Reason.WRONG_TOKEN),
        (user("access:services", *IDENTITY), Reason.WRONG_TOKEN),
        (user("read:services!service=ssh", *IDENTITY), Reason.WRONG_TOKEN),
        (user("access:services!service=ssh ", *IDENTITY), Reason.WRONG_TOKEN),
        # an admin's visit, captured by alice's notebook
        (user(*OF_GPU, name="root", admin=True), Reason.WRONG_TOKEN),
        # a collaborator's token with the scope of alice's server
        (user("access:servers!server=alice/gpu", name="bob"), Reason.WRONG_TOKEN),
        # tokens that open more than one server, or none
        (user("access:servers!user=alice", *IDENTITY), Reason.WRONG_TOKEN),
        (user("access:servers", name="root"), Reason.WRONG_TOKEN),
        (user("access:servers!server=alice/", "access:servers!server=alice/gpu"), Reason.WRONG_TOKEN),
        (user(*IDENTITY), Reason.WRONG_TOKEN),
        (user(), Reason.WRONG_TOKEN),
        # no person at all
        (user(OURS, kind="service", name="ssh"), Reason.NOT_A_USER),
        (user(OURS, kind=None), Reason.NOT_A_USER),
        (user(OURS, kind=["user"]), Reason.NOT_A_USER),
        ({}, Reason.NOT_A_USER),
    ],
)
def test_a_token_counts_for_what_its_scopes_say(model: dict[str, object], expected: TokenOwner | Reason) -> None:
    answer = judge_token(model, "ssh")
    if isinstance(expected, Reason):
        assert isinstance(answer, Refusal)
        assert answer.reason is expected
    else:
        assert answer == expected


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (user(*OF_ALICE), Server("alice")),
        (user(*OF_GPU), Server("alice", "gpu")),
        (user(*OF_GPU, *OF_GPU), Server("alice", "gpu")),
        (user("access:servers!server=Bob@example.org/", name="Bob@example.org"), Server("Bob@example.org")),
        (user("access:servers!server=ünï/a b", name="ünï"), Server("ünï", "a b")),
        (user("access:servers!server=alice/gpu", name="bob"), Reason.NOT_YOURS),
        (user("access:servers!server=alice/gpu", name="root", admin=True), Reason.NOT_YOURS),
        (user("access:servers!server=Alice/gpu"), Reason.NOT_YOURS),
        (user("access:servers!server=alice/gpu", "access:servers!server=alice/"), Reason.WRONG_TOKEN),
        (user("access:servers!server=alice/gpu", "access:servers!user=alice"), Reason.WRONG_TOKEN),
        (user("access:servers!server=alice/gpu", "access:servers"), Reason.WRONG_TOKEN),
        (user("access:servers!server=alice/gpu", "access:servers!server=bob/gpu"), Reason.WRONG_TOKEN),
        (user("access:servers"), Reason.WRONG_TOKEN),
        (user("access:servers!user=alice"), Reason.WRONG_TOKEN),
        (user("access:servers!group=students"), Reason.WRONG_TOKEN),
        (user("access:servers!server="), Reason.WRONG_TOKEN),
        (user("access:servers!server=alice"), Reason.WRONG_TOKEN),
        (user("access:servers!server=/gpu"), Reason.WRONG_TOKEN),
        (user("access:servers!server=alice/gpu/x"), Reason.WRONG_TOKEN),
        (user("read:servers!server=alice/gpu"), Reason.WRONG_TOKEN),
        (user("access:servers:x!server=alice/gpu"), Reason.WRONG_TOKEN),
        (user("xaccess:servers!server=alice/gpu"), Reason.WRONG_TOKEN),
        (user(OURS), Reason.WRONG_TOKEN),
        (user(*OF_GPU, kind="service"), Reason.NOT_A_USER),
    ],
)
def test_a_pod_speaks_for_the_one_server_that_its_own_user_owns(
    model: dict[str, object], expected: Server | Reason
) -> None:
    answer = judge_enrolment(model)
    if isinstance(expected, Reason):
        assert isinstance(answer, Refusal)
        assert answer.reason is expected
    else:
        assert answer == expected


@pytest.mark.parametrize(
    "model",
    [
        None,
        [],
        "user",
        7,
        user(name=None),
        user(name=""),
        user(name=7),
        user(name=["alice"]),
        user(name="\ud800"),
        user(name="a\0b"),
        user(name="a" * 256),
        {"kind": "user", "name": "alice"},
        user(scopes=None),
        user(scopes="access:servers!server=alice/"),
        user(scopes={OURS: True}),
    ],
)
@pytest.mark.parametrize("judge", [judge_enrolment, lambda model: judge_token(model, "ssh")])
def test_an_answer_that_is_not_jupyterhubs_is_malformed(model: object, judge: Callable[[object], object]) -> None:
    with pytest.raises(MalformedClaims):
        judge(model)


@pytest.mark.parametrize("name", ["\ud800", "x" * 256])
def test_the_token_of_a_server_that_ssh_cannot_name_is_refused_with_a_reason(name: str) -> None:
    model = user(f"access:servers!server=alice/{name}")
    for answer, reason in (
        (judge_enrolment(model), Reason.BAD_NAME),
        (judge_token(model, "ssh"), Reason.WRONG_TOKEN),
    ):
        assert isinstance(answer, Refusal)
        assert answer.reason is reason


def test_scopes_that_are_no_text_are_passed_over() -> None:
    assert judge_token(user(7, None, ["x"], OURS), "ssh") == TokenOwner("alice", TokenKind.ACCESS)


def test_active_servers_are_running_and_ready_ones_are_ready() -> None:
    model = user(
        servers={
            "": server(),
            "gpu": server(name="gpu", ready=False, pending="spawn"),
            "dying": server(ready=False, pending="stop"),
            "odd": server(ready=True, pending="check"),
            "truthy": server(ready="yes"),
            "off": server(stopped=True, started=STARTED),
            "never": server(started=None),
            "missing": {},
        }
    )
    found = {one.server.name: one for one in running_servers(model)}
    assert found[""] == Running(ALICE, ready=True)
    assert found["gpu"] == Running(GPU, ready=False, pending="spawn")
    assert not any(found[name].ready for name in ("dying", "odd", "truthy"))
    assert set(found) == {"", "gpu", "dying", "odd", "truthy"}


@pytest.mark.parametrize(
    "model",
    [
        user(),
        user(servers=None),
        user(servers=[server()]),
        user(servers={"": None}),
        user(servers={"": []}),
        user(servers={"": server(started="yesterday")}),
        user(servers={"": server(started="1960-01-01T00:00:00Z")}),
        user(servers={"": server(pending=7)}),
        user(servers={7: server()}),
        user(servers={}, name=None),
        None,
    ],
)
def test_servers_in_a_form_that_is_not_known_are_malformed(model: object) -> None:
    with pytest.raises(MalformedClaims):
        running_servers(model)


SHARED_GPU = share("alice", "gpu", f"{CONNECT_SCOPE}!server=alice/gpu")


@pytest.mark.parametrize("name", ["\ud800", "x" * 256])
def test_a_server_that_cannot_be_named_does_not_exist_and_hides_no_other(name: str) -> None:
    model = user(servers={name: server(name=name), "gpu": server(name="gpu")})
    assert running_servers(model) == (Running(GPU, ready=True),)
    assert set(known_servers(model)) == {GPU.server}
    assert shared_servers([share("alice", name, f"{CONNECT_SCOPE}!server=alice/{name}"), SHARED_GPU]) == {GPU.server}


@pytest.mark.parametrize("name", ["\ud800", "x" * 256, "a\0b"])
def test_a_share_of_somebody_who_cannot_be_named_hides_no_other(name: str) -> None:
    assert shared_servers([share(name, "", f"{CONNECT_SCOPE}!server={name}/"), SHARED_GPU]) == {GPU.server}


def test_only_shares_with_the_scope_for_ssh_share_ssh() -> None:
    shares = [
        share("alice", "gpu", "access:servers!server=alice/gpu", f"{CONNECT_SCOPE}!server=alice/gpu"),
        share("carol", "", f"{CONNECT_SCOPE}!server=carol/"),
        share("alice", "web", "access:servers!server=alice/web"),
        share("alice", "other", f"{CONNECT_SCOPE}!server=alice/gpu"),
        share("alice", "user", f"{CONNECT_SCOPE}!user=alice"),
        share("alice", "bare", CONNECT_SCOPE),
    ]
    assert shared_servers(shares) == {Server("alice", "gpu"), Server("carol")}
    assert shared_servers(shares, scope="access:servers") == {Server("alice", "gpu"), Server("alice", "web")}
    assert shared_servers([]) == frozenset()


@pytest.mark.parametrize(
    "item",
    [
        None,
        [],
        {},
        {"server": None, "scopes": []},
        {"server": {"user": None, "name": ""}, "scopes": []},
        {"server": {"user": {"name": "a"}}, "scopes": []},
        {"server": {"user": {"name": "a"}, "name": None}, "scopes": []},
        {"server": {"user": {"name": "a"}, "name": ""}},
        {"server": {"user": {"name": "a"}, "name": ""}, "scopes": "x"},
    ],
)
def test_a_share_in_a_form_that_is_not_known_is_malformed(item: object) -> None:
    with pytest.raises(MalformedClaims):
        shared_servers([item])


def test_groups_are_those_that_jupyterhub_says() -> None:
    assert groups_of(user(groups=["a", 7, None, "b"])) == {"a", "b"}
    assert groups_of(user(groups=None)) == groups_of(user(groups="ab")) == groups_of({}) == frozenset()


@given(strategies.json_values)
def test_any_json_is_judged_or_malformed_and_never_crashes(value: object) -> None:
    owner = TokenOwner("alice", TokenKind.BROWSER)
    readers: list[Callable[[], object]] = [
        lambda: judge_token(value, "ssh"),
        lambda: judge_enrolment(value),
        lambda: running_servers(value),
        lambda: shared_servers([value]),
        lambda: groups_of(value),
        lambda: build_claims(owner, value),
    ]
    for read in readers:
        try:
            read()
        except MalformedClaims:
            continue


@given(st.dictionaries(st.sampled_from(["", "gpu", "\ud800"]), strategies.json_values | st.builds(server)), st.data())
def test_damaged_models_are_read_or_malformed(servers: dict[str, object], data: st.DataObject) -> None:
    model = user(OURS, *OF_GPU, servers=servers)
    model[data.draw(st.sampled_from(sorted(model)))] = data.draw(strategies.json_values)
    try:
        claims = build_claims(TokenOwner("alice", TokenKind.ACCESS), model)
    except MalformedClaims:
        return
    assert claims.user == "alice"
    assert all(one.server.owner == "alice" for one in claims.running)


MODEL = user(servers={"": server(), "gpu": server(name="gpu")})
SHARED = Running(Instance(Server("carol"), 5), ready=True)
OWN_AS_SHARED = Running(GPU, ready=True)
ADMINISTERED = (Running(Instance(Server("dave"), 6), ready=True), SHARED, Running(ALICE, ready=True))


def build(kind: TokenKind, *, admin: bool = False, only: Server | None = None) -> Claims:
    return build_claims(
        TokenOwner("alice", kind, only),
        MODEL,
        shared=(SHARED, OWN_AS_SHARED),
        admin=admin,
        administered=ADMINISTERED,
        until=99.0,
    )


@pytest.mark.parametrize("kind", [TokenKind.BROWSER, TokenKind.ACCESS])
def test_claims_hold_own_and_shared_servers_each_once(kind: TokenKind) -> None:
    claims = build(kind)
    assert [(str(one.server), one.via) for one in claims.running] == [
        ("alice", Via.OWN),
        ("alice/gpu", Via.OWN),
        ("carol", Via.SHARED),
    ]
    assert (claims.user, claims.kind, claims.groups, claims.until) == ("alice", kind, frozenset({"students"}), 99.0)
    assert not claims.admin


def test_an_admin_is_one_in_the_browser_only() -> None:
    assert build(TokenKind.BROWSER, admin=True).running[-1] == Running(
        Instance(Server("dave"), 6), ready=True, via=Via.ADMIN
    )
    assert build(TokenKind.BROWSER, admin=True).admin
    assert len(build(TokenKind.BROWSER, admin=True).running) == 4
    claims = build(TokenKind.ACCESS, admin=True)
    assert not claims.admin
    assert len(claims.running) == 3


def test_a_servers_token_claims_that_server_and_nothing_else() -> None:
    claims = build(TokenKind.SERVER, admin=True, only=GPU.server)
    assert claims.running == (Running(GPU, ready=True),)
    assert not claims.admin
    assert build(TokenKind.SERVER, only=Server("alice", "gone")).running == ()


def test_a_model_of_somebody_else_is_malformed() -> None:
    with pytest.raises(MalformedClaims, match="another user"):
        build_claims(TokenOwner("bob", TokenKind.BROWSER), MODEL)
