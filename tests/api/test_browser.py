"""Why: this is the whole way of a person: JupyterHub's own login form, our page, a certificate that OpenSSH reads."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncssh
import httpx
import pytest

from api.session import LIFETIME
from tests.support.browser import Person, form, forms
from tests.support.hub import Hub
from tests.support.service import Service, running_service
from tests.support.ssh_keygen import show


@pytest.fixture
async def service(hub: Hub, tmp_path: Path) -> AsyncIterator[Service]:
    async with running_service(hub, tmp_path / "state") as running:
        yield running


@pytest.fixture
async def person(service: Service) -> AsyncIterator[Person]:
    async with Person(service) as someone:
        yield someone


def public_line(algorithm: str = "ssh-ed25519", **options: int) -> str:
    key = asyncssh.generate_private_key(algorithm, **options)
    return key.export_public_key().decode().strip()


def certificate_on(page: httpx.Response) -> str:
    found = re.search(r"<code[^>]*>(\S+-cert-v01@openssh\.com [A-Za-z0-9+/=]+)</code>", page.text)
    assert found is not None, page.text
    return found[1]


async def test_someone_logs_in_and_gets_a_certificate_for_the_running_servers(
    hub: Hub, service: Service, person: Person
) -> None:
    plain = await hub.start_server("alice")
    await hub.start_server("alice", "gpu")
    page = await person.log_in("alice")
    assert page.url == f"{service.url}/"
    shown = await person.submit(page, "/certificates/form", public_key=public_line(), then="show")
    assert shown.status_code == 200
    certificate = show(certificate_on(shown))
    assert certificate.kind == "user"
    assert certificate.key_id == "alice"
    assert [name.partition(":")[0] for name in certificate.principals] == ["alice/", "alice/gpu"]
    assert certificate.principals[0].endswith(plain["started"].partition(".")[2].rstrip("Z"))
    assert certificate.valid_before == service.clock.now + LIFETIME
    assert "Valid for 12 hours" in shown.text
    (line,) = service.events("certificate_issued")
    assert (line["user"], line["how"], line["peer"]) == ("alice", "page", "127.0.0.1")


async def test_the_certificate_comes_as_a_file_for_ssh_to_find(hub: Hub, service: Service, person: Person) -> None:
    await hub.start_server("alice")
    page = await person.log_in("alice")
    for algorithm, name in [("ssh-ed25519", "id_ed25519"), ("ecdsa-sha2-nistp256", "id_ecdsa")]:
        file = await person.submit(page, "/certificates/form", public_key=public_line(algorithm), then="download")
        assert file.headers["content-type"].startswith("text/plain")
        assert file.headers["content-disposition"] == f'attachment; filename="{name}-cert.pub"'
        assert file.headers["cache-control"] == "no-store"
        assert show(file.text.strip()).key_id == "alice"
    shown = await person.submit(page, "/certificates/form", public_key=public_line(), then="show")
    saved = await person.submit(shown, "/certificates/file")
    assert saved.text.strip() == certificate_on(shown)
    assert saved.headers["content-disposition"] == 'attachment; filename="id_ed25519-cert.pub"'


async def test_only_a_certificate_of_ones_own_comes_back_as_a_file(hub: Hub, service: Service, person: Person) -> None:
    await hub.start_server("alice")
    await hub.start_server("bob")
    page = await person.log_in("alice")
    shown = await person.submit(page, "/certificates/form", public_key=public_line(), then="show")
    async with Person(service) as bob:
        theirs = await bob.submit(
            await bob.log_in("bob"), "/certificates/form", public_key=public_line(), then="download"
        )
    for text in (theirs.text, "x", "", "<script>", public_line(), certificate_on(shown)[:-8]):
        answer = await person.submit(shown, "/certificates/file", certificate=text)
        assert answer.status_code == 400
        assert "content-disposition" not in answer.headers


async def test_one_server_can_be_chosen(hub: Hub, person: Person) -> None:
    await hub.start_server("alice")
    await hub.start_server("alice", "gpu")
    page = await person.log_in("alice")
    assert form(page, "/certificates/form").choices["server"] == ["", "alice", "alice+gpu"]
    shown = await person.submit(page, "/certificates/form", public_key=public_line(), server="alice+gpu", then="show")
    (principal,) = show(certificate_on(shown)).principals
    assert principal.startswith("alice/gpu:")


async def test_the_page_shows_what_runs_and_where_ssh_is_enabled(hub: Hub, service: Service, person: Person) -> None:
    await hub.start_server("alice")
    await hub.start_server("alice", "gpu")
    await service.enrol("alice", "gpu", public_line())
    page = await person.log_in("alice")
    assert "running, SSH enabled" in page.text
    assert "ssh -p 2222 alice+gpu@127.0.0.1" in page.text
    assert "running, SSH not enabled" in page.text
    assert 'data-copy="the ssh command for alice/gpu"' in page.text
    assert 'data-copy="the ssh command for alice"' not in page.text
    assert "with “Enable SSH” ticked" in page.text


async def test_the_result_says_what_to_type(hub: Hub, service: Service, person: Person) -> None:
    await hub.start_server("alice", "gpu")
    await service.enrol("alice", "gpu", public_line())
    page = await person.log_in("alice")
    shown = await person.submit(page, "/certificates/form", public_key=public_line(), then="show")
    for command in (
        "ssh -p 2222 alice+gpu@127.0.0.1",
        "scp -P 2222 data.csv alice+gpu@127.0.0.1:",
        "scp -P 2222 alice+gpu@127.0.0.1:results.csv .",
        "ssh -J jump@127.0.0.1:2222 jovyan@alice+gpu.hub",
    ):
        assert f">{command}</code>" in shown.text
    known_hosts = (await service.request("GET", "/known_hosts")).text.splitlines()[0]
    assert known_hosts.startswith("@cert-authority ")
    assert known_hosts.replace("+", "&#43;") in shown.text or known_hosts in shown.text
    assert "~/.ssh/id_ed25519-cert.pub" in shown.text


async def test_without_a_running_server_there_is_a_sentence_and_no_certificate(
    hub: Hub, service: Service, person: Person
) -> None:
    page = await person.log_in("alice")
    assert "Start it in JupyterHub" in page.text
    answer = await person.submit(page, "/certificates/form", public_key=public_line(), then="show")
    assert answer.status_code == 409
    assert "Start one in JupyterHub" in answer.text
    assert [line["reason"] for line in service.events("certificate_refused")] == ["no_server"]


async def test_a_server_that_stopped_since_the_page_was_shown_is_asked_about_anew(hub: Hub, person: Person) -> None:
    await hub.start_server("alice")
    page = await person.log_in("alice")
    await hub.stop_server("alice")
    answer = await person.submit(page, "/certificates/form", public_key=public_line(), then="show")
    assert answer.status_code == 409


async def test_a_shared_server_counts_for_one_hour(hub: Hub, service: Service, person: Person) -> None:
    await hub.start_server("alice", "gpu")
    await hub.share("alice", "gpu", "bob")
    page = await person.log_in("bob")
    assert "Shared with you by alice" in page.text
    shown = await person.submit(page, "/certificates/form", public_key=public_line(), then="show")
    certificate = show(certificate_on(shown))
    assert certificate.principals[0].startswith("alice/gpu:")
    assert certificate.key_id == "bob"
    assert certificate.valid_before == service.clock.now + 3600


async def test_a_server_shared_for_the_web_only_gives_no_certificate(hub: Hub, person: Person) -> None:
    await hub.start_server("alice", "gpu")
    await hub.share("alice", "gpu", "bob", ["access:servers"])
    page = await person.log_in("bob")
    assert "alice/gpu" not in page.text
    answer = await person.submit(page, "/certificates/form", public_key=public_line(), server="alice+gpu", then="show")
    assert answer.status_code == 409


async def test_certificates_are_listed_and_revoked(hub: Hub, service: Service, person: Person) -> None:
    await hub.start_server("alice")
    page = await person.log_in("alice")
    await person.submit(page, "/certificates/form", public_key=public_line(), then="show")
    page = await person.client.get("/")
    (revoke,) = [one for one in forms(page) if one.action.endswith("/revoke")]
    serial = revoke.action.split("/")[-2]
    page = await person.submit(page, f"/certificates/{serial}/revoke")
    assert page.url == f"{service.url}/?done=revoked"
    assert "The certificate was revoked" in page.text
    assert [one for one in forms(page) if one.action.endswith("/revoke")] == []
    assert int(serial) in service.services.store.snapshot.revocations.serials
    (line,) = service.events("revoked")
    assert (line["by"], line["serial"]) == ("alice", serial)


async def test_nobody_revokes_what_belongs_to_somebody_else_by_the_form(
    hub: Hub, service: Service, person: Person
) -> None:
    await hub.start_server("alice")
    await person.submit(await person.log_in("alice"), "/certificates/form", public_key=public_line(), then="show")
    page = await person.client.get("/")
    (revoke,) = [one for one in forms(page) if one.action.endswith("/revoke")]
    async with Person(service) as bob:
        await bob.log_in("bob")
        token = form(await bob.client.get("/"), "/logout").fields["form_token"]
        for action in (revoke.action, f"{service.url}/certificates/1/revoke", f"{service.url}/certificates/x/revoke"):
            answer = await bob.client.post(action, data={"form_token": token})
            assert answer.status_code == 403
            assert "no certificate with this serial number" in answer.text
    assert service.services.store.snapshot.revocations.serials == frozenset()


async def test_an_expired_certificate_leaves_the_list(hub: Hub, service: Service, person: Person) -> None:
    await hub.start_server("alice")
    await person.submit(await person.log_in("alice"), "/certificates/form", public_key=public_line(), then="show")
    service.clock.advance(LIFETIME)
    page = await person.log_in("alice")
    assert [one for one in forms(page) if one.action.endswith("/revoke")] == []


async def test_a_certificate_ends_with_the_login_that_it_came_from(hub: Hub, service: Service, person: Person) -> None:
    await hub.start_server("alice")
    page = await person.log_in("alice")
    service.clock.advance(LIFETIME - 600)
    page = await person.client.get("/")
    assert "Certificates end with your login here, in 10 minutes" in page.text
    shown = await person.submit(page, "/certificates/form", public_key=public_line(), then="show")
    assert show(certificate_on(shown)).valid_before == service.clock.now + 600
    assert "Valid for 10 minutes" in shown.text


# -- who is logged in -----------------------------------------------------------------------------------------------


async def test_without_a_session_there_is_a_greeting_and_a_way_in(service: Service, person: Person) -> None:
    page = await person.client.get("/")
    assert page.status_code == 200
    assert "Log in with JupyterHub" in page.text
    assert f'href="{service.url}/login"' in page.text


async def test_a_session_cookie_holds_no_token_of_jupyterhub(hub: Hub, service: Service, person: Person) -> None:
    await person.log_in("alice")
    cookie = person.client.cookies["bastion-session"]
    held = service.front.sessions.read({"bastion-session": cookie})
    assert held is not None
    assert (held.user, held.admin) == ("alice", False)
    assert "token" not in repr(held)
    assert hub.service_token not in cookie


async def test_a_new_login_gets_a_new_session_and_ends_the_old_one(hub: Hub, service: Service, person: Person) -> None:
    """Session fixation: whatever cookie somebody planted before the login is worth nothing after it."""
    async with Person(service) as mallory:
        await mallory.log_in("bob")
        planted = mallory.client.cookies["bastion-session"]
    person.client.cookies.set("bastion-session", planted, domain="127.0.0.1", path="/")
    page = await person.log_in("alice")
    assert ">alice</span>" in page.text
    now = [cookie.value for cookie in person.client.cookies.jar if cookie.name == "bastion-session"]
    assert planted not in now
    assert service.front.sessions.read({"bastion-session": planted}) is None


async def test_a_forged_cookie_is_nobody(service: Service, person: Person) -> None:
    for text in ("x", "eyJ1c2VyIjoiYWRtaW4ifQ.c2ln", "a" * 4000):
        page = await person.client.get("/", headers={"Cookie": f"bastion-session={text}"})
        assert page.status_code == 200
        assert "Log in with JupyterHub" in page.text
        answer = await person.client.post("/certificates/form", headers={"Cookie": f"bastion-session={text}"})
        assert answer.status_code == 401


async def test_logging_out_ends_the_session_and_says_that_jupyterhubs_goes_on(
    hub: Hub, service: Service, person: Person
) -> None:
    page = await person.log_in("alice")
    cookie = person.client.cookies["bastion-session"]
    out = await person.submit(page, "/logout")
    assert "bastion-session" not in person.client.cookies
    assert "Your login at JupyterHub goes on" in out.text
    assert f"{hub.url}/hub/logout" in out.text
    page = await person.client.get("/", headers={"Cookie": f"bastion-session={cookie}"})
    assert "Log in with JupyterHub" in page.text
    assert (await person.client.post("/logout")).status_code == 200


async def test_a_session_ends_after_twelve_hours(service: Service, person: Person) -> None:
    page = await person.log_in("alice")
    service.clock.advance(LIFETIME)
    answer = await person.submit(page, "/certificates/form", public_key=public_line(), then="show")
    assert answer.status_code == 401
    assert "Log in again" in answer.text


async def test_a_user_whom_jupyterhub_no_longer_knows_gets_nothing(hub: Hub, service: Service, person: Person) -> None:
    await hub.user("carol")
    page = await person.log_in("carol")
    await hub.request("DELETE", "/users/carol")
    answer = await person.submit(page, "/certificates/form", public_key=public_line(), then="show")
    assert answer.status_code == 403
    assert service.events("certificate_refused")[-1]["reason"] == "not_a_user"
    assert (await person.client.get("/")).status_code == 403


async def test_a_name_that_was_given_to_somebody_else_leaves_the_old_browser_with_nothing(
    hub: Hub, service: Service, person: Person
) -> None:
    await hub.user("carol")
    page = await person.log_in("carol")
    await hub.request("DELETE", "/users/carol")
    await hub.start_server("carol")
    answer = await person.submit(page, "/certificates/form", public_key=public_line(), then="show")
    assert answer.status_code == 403
    assert (await person.client.get("/")).status_code == 403
    assert service.events("certificate_issued") == []
    page = await person.log_in("carol")
    assert (await person.submit(page, "/certificates/form", public_key=public_line(), then="show")).status_code == 200


@pytest.mark.parametrize(
    ("wanted", "place"),
    [
        ("/?done=revoked", "/?done=revoked"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/%5cevil.example", "/"),
        ("%2f%2fevil.example", "/"),
        ("/%252f/evil.example", "/"),
        ("https://evil.example", "/"),
        ("/%09/evil.example", "/"),
        ("/login", "/"),
    ],
)
async def test_a_login_comes_back_to_this_site_and_nowhere_else(
    service: Service, person: Person, wanted: str, place: str
) -> None:
    page = await person.log_in("alice", wanted)
    assert str(page.url) == f"{service.url}{place}"


async def test_a_callback_counts_once_and_only_in_its_own_browser(hub: Hub, service: Service, person: Person) -> None:
    seen: list[str] = []

    async def remember(response: httpx.Response) -> None:
        if response.url.path == "/oauth_callback":
            seen.append(str(response.url))

    person.client.event_hooks = {"request": [], "response": [remember]}
    await person.log_in("alice")
    (callback,) = seen
    again = await person.client.get(callback)
    assert again.status_code == 403
    assert "Log in again" in again.text
    async with Person(service) as other:
        stolen = await other.client.get(callback)
        assert stolen.status_code == 403
        assert "bastion-session" not in other.client.cookies
    assert len(service.events("login_refused")) == 2
    code = parse_qs(urlsplit(callback).query)["code"][0]
    assert code not in service.audit.getvalue()


async def test_nobody_is_logged_in_as_somebody_else_by_a_link(hub: Hub, service: Service, person: Person) -> None:
    """Login CSRF: bob stops his own login before the callback, and gives that link to alice."""
    async with Person(service) as bob:
        bob.client.follow_redirects = False
        url = (await bob.client.get("/login")).headers["location"]
        hubs = await hub.login("bob")
        link = (await hubs.get(url, follow_redirects=False)).headers["location"]
        await hubs.aclose()
    await person.log_in("alice")
    answer = await person.client.get(link)
    assert answer.status_code == 403
    assert ">alice</span>" in (await person.client.get("/")).text


async def test_a_login_that_the_hub_refuses_is_a_page_with_a_next_step(service: Service, person: Person) -> None:
    person.client.follow_redirects = False
    url = (await person.client.get("/login")).headers["location"]
    state = parse_qs(urlsplit(url).query)["state"][0]
    answer = await person.client.get(
        "/oauth_callback", params={"state": state, "error": "access_denied", "error_description": "<b>no</b>"}
    )
    assert answer.status_code == 403
    assert "agree when JupyterHub asks" in answer.text
    assert f'href="{service.url}/login"' in answer.text
    assert "<b>" not in answer.text


# -- forms from elsewhere -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/certificates/form",
        "/certificates/file",
        "/certificates/1/revoke",
        "/logout",
        "/servers/alice/start",
        "/servers/alice/stop",
        "/sessions/0/end",
    ],
)
async def test_a_form_without_its_token_or_from_another_site_does_nothing(
    hub: Hub, service: Service, person: Person, path: str
) -> None:
    await hub.start_server("alice")
    page = await person.log_in("alice")
    token = form(page, "/logout").fields["form_token"]
    fields = {"public_key": public_line(), "then": "show"}
    ours = {"Origin": service.url}
    async with Person(service) as bob:
        foreign = form(await bob.log_in("bob"), "/logout").fields["form_token"]
    for data, headers in [
        (fields, ours),
        ({**fields, "form_token": ""}, ours),
        ({**fields, "form_token": foreign}, ours),
        ({**fields, "form_token": token}, {"Origin": "https://evil.example"}),
        ({**fields, "form_token": token}, {"Origin": "null"}),
        ({**fields, "form_token": token}, {"Origin": hub.url}),
        ({**fields, "form_token": token}, {"Sec-Fetch-Site": "cross-site"}),
    ]:
        answer = await person.client.post(path, data=data, headers=headers)
        assert answer.status_code == 403, headers
        assert "nothing was done" in answer.text
    assert "bastion-session" in person.client.cookies
    assert service.events("certificate_issued") == []
    assert len(service.events("request_refused")) == 7


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\xff\xfe", "application/x-www-form-urlencoded"),
        (b"{}", "application/json"),
        (b"--x\r\n", "multipart/form-data"),
        (b"--x\r\nbroken", "multipart/form-data; boundary=x"),
        (b"&".join(b"a%d=1" % at for at in range(100)), "application/x-www-form-urlencoded"),
        (b"form_token=" + b"%ff" * 10, "application/x-www-form-urlencoded"),
    ],
)
async def test_a_form_that_is_none_is_refused(person: Person, content: bytes, kind: str) -> None:
    await person.log_in("alice")
    answer = await person.client.post("/certificates/form", content=content, headers={"Content-Type": kind})
    assert answer.status_code == 403
    assert "Traceback" not in answer.text


async def test_a_megabyte_is_too_much(service: Service, person: Person) -> None:
    page = await person.log_in("alice")
    answer = await person.submit(page, "/certificates/form", public_key="A" * (1 << 20), then="show")
    assert answer.status_code == 413


# -- keys that are none ---------------------------------------------------------------------------------------------


def _private_key() -> str:
    return asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()


def _weak_rsa() -> str:
    return public_line("ssh-rsa", key_size=1024)


def _two() -> str:
    return f"{public_line()}\n{public_line()}"


def _certificate_of_another_ca() -> str:
    ca = asyncssh.generate_private_key("ssh-ed25519")
    signed = ca.generate_user_certificate(asyncssh.generate_private_key("ssh-ed25519"), "x", principals=["alice"])
    return signed.export_certificate().decode().strip()


NO_GOOD_KEYS: list[tuple[object, str]] = [
    ("", "Send one line"),
    ("hello", "Send one line"),
    ("ssh-ed25519", "Send one line"),
    ("ssh-ed25519 not-base64", "not base64"),
    ("ssh-ed25519 AAAA", "not accepted"),
    ("ssh-dss AAAAB3NzaC1kc3MAAAAB", "not accepted"),
    ("ssh-ed25519 ｆｕｌｌ", "not base64"),
    ("ssh-ed25519 \u202eAAAA", "not base64"),
    (_two, "exactly one"),
    (_weak_rsa, "3072"),
    (_private_key, "private key"),
    (_certificate_of_another_ca, "That is a certificate"),
    ("<script>alert(1)</script> AAAA", "not accepted"),
    ("ssh-ed25519 " + "A" * 20_000, "longer than"),
]


async def test_what_is_no_good_key_gets_a_sentence_on_the_page(hub: Hub, service: Service, person: Person) -> None:
    await hub.start_server("alice")
    page = await person.log_in("alice")
    for pasted, says in NO_GOOD_KEYS:
        text = pasted() if callable(pasted) else str(pasted)
        answer = await person.submit(page, "/certificates/form", public_key=text, then="download")
        assert answer.status_code == 400, says
        assert "No certificate was made" in answer.text
        assert says in answer.text
        assert "<script>alert" not in answer.text
        assert "PRIVATE KEY" not in answer.text
        assert service.events("certificate_refused")[-1]["reason"] == "bad_key"
    assert service.events("certificate_issued") == []


async def test_a_pasted_private_key_is_called_lost(hub: Hub, person: Person) -> None:
    await hub.start_server("alice")
    answer = await person.submit(await person.log_in("alice"), "/certificates/form", public_key=_private_key())
    assert "make a new one" in answer.text


async def test_a_key_with_spaces_and_a_line_end_around_it_is_a_good_key(hub: Hub, person: Person) -> None:
    await hub.start_server("alice")
    page = await person.log_in("alice")
    pasted = f"\r\n  {public_line()} Zoë’s <laptop>\r\n"
    shown = await person.submit(page, "/certificates/form", public_key=pasted, then="show")
    assert show(certificate_on(shown)).key_id == "alice"


# -- outages --------------------------------------------------------------------------------------------------------


async def test_without_jupyterhub_nothing_is_known_and_nothing_is_signed(own_hub: Hub, tmp_path: Path) -> None:
    async with running_service(own_hub, tmp_path / "state") as service, Person(service) as person:
        await own_hub.start_server("alice")
        page = await person.log_in("alice")
        await person.submit(page, "/certificates/form", public_key=public_line(), then="show")
        own_hub.halt()
        page = await person.client.get("/")
        assert page.status_code == 200
        assert "It is not known which of your servers run" in page.text
        assert len([one for one in forms(page) if one.action.endswith("/revoke")]) == 1
        answer = await person.submit(page, "/certificates/form", public_key=public_line(), then="show")
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert "JupyterHub" in answer.text
        async with Person(service) as other:
            other.client.follow_redirects = False
            url = (await other.client.get("/login")).headers["location"]
            state = parse_qs(urlsplit(url).query)["state"][0]
            answer = await other.client.get("/oauth_callback", params={"state": state, "code": "x"})
            assert answer.status_code == 503


# -- the pages themselves -------------------------------------------------------------------------------------------


async def test_nothing_foreign_runs_in_the_pages(hub: Hub, service: Service, person: Person) -> None:
    await hub.start_server("alice")
    welcome = await person.client.get("/")
    page = await person.log_in("alice")
    shown = await person.submit(page, "/certificates/form", public_key=public_line(), then="show")
    failed = await person.client.get("/oauth_callback")
    for one in (welcome, page, shown, failed):
        policy = one.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert one.headers["x-frame-options"] == "DENY"
        assert one.headers["x-content-type-options"] == "nosniff"
        assert one.headers["referrer-policy"] == "same-origin"
        assert one.headers["cross-origin-opener-policy"] == "same-origin"
        assert one.headers["cache-control"] == "no-store"
        assert re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=", one.text) is None
        for url in re.findall(r'(?:src|href)="([^"]+)"', one.text):
            assert url.startswith((f"{service.url}/", f"{hub.url}/hub/", "#"))


@pytest.mark.parametrize(
    ("name", "kind"), [("page.css", "text/css"), ("copy.js", "text/javascript"), ("mark.svg", "image/svg+xml")]
)
async def test_the_pages_files_are_served_with_their_types(service: Service, name: str, kind: str) -> None:
    answer = await service.request("GET", f"/static/{name}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(kind)
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "name", ["x", "../pages.py", "..%2fpages.py", "%2e%2e/settings.py", "page.css%00", "base.html"]
)
async def test_no_other_file_is_served(service: Service, name: str) -> None:
    assert (await service.request("GET", f"/static/{name}")).status_code == 404


async def test_links_never_come_from_the_host_header(service: Service, person: Person) -> None:
    page = await person.client.get("/", headers={"Host": "evil.example", "X-Forwarded-Host": "evil.example"})
    assert "evil.example" not in page.text
    person.client.follow_redirects = False
    answer = await person.client.get("/login", headers={"Host": "evil.example"})
    assert "evil" not in answer.headers["location"]


async def test_a_user_with_any_name_can_be_shown(hub: Hub, person: Person) -> None:
    name = "<b>zoë & co@example.org"
    await hub.user(name)
    page = await person.log_in(name)
    assert "&lt;b&gt;zoë &amp; co@example.org<" in page.text
    assert "<b>zo" not in page.text


def test_the_script_is_plain_javascript() -> None:
    script = Path(__file__).parents[2] / "api" / "static" / "copy.js"
    assert "innerHTML" not in script.read_text()
    assert "eval" not in script.read_text()
